"""Hostile checkpoints: nothing in them runs, nothing they claim is believed, and every refusal says why (exit 5)."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_checkpoints import on_disk, tiny, write_config, write_vocabulary

from unilmctl.errors import ModelError
from unilmctl.weights import convert
from unilmctl.weights.assembling import assemble
from unilmctl.weights.configuration import hugging_face_config
from unilmctl.weights.reading import read_json, read_pickle, read_safetensors
from unilmctl.weights.sources import read_tensors


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> None:
    """A folder as of somebody else, with these tensors (None: without weights)."""
    write_config(folder, tiny().config, **config)
    write_vocabulary(folder)
    if tensors is not None:
        (folder / "model.safetensors").write_bytes(save(tensors))


def refused(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(path)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)
    return str(caught.value)


PAYLOADS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "eval": lambda mark: Calls(eval, f"open({mark!r}, 'w')"),
    "exec": lambda mark: Calls(exec, f"open({mark!r}, 'w')"),
    "in a dict": lambda mark: {"weight": torch.zeros(2), "x": Calls(os.system, f"touch {mark}")},
    "in an ordered dict": lambda mark: OrderedDict(a=torch.zeros(2), b=[Calls(os.mkdir, mark)]),
    "as a key": lambda mark: {Calls(os.mkdir, mark): torch.zeros(2)},
    "open": lambda mark: Calls(open, mark, "w"),
    "getattr": lambda mark: Calls(getattr, mark, "upper"),
    "import": lambda mark: Calls(__import__, "os"),
    "torch.load in torch.load": lambda mark: Calls(torch.load, mark),
    "torch.hub": lambda mark: Calls(torch.hub.load, mark, "x"),
    "a numpy array of objects": lambda mark: {"weight": np.array([Calls(os.mkdir, mark)], dtype=object)},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("payload", list(PAYLOADS))
def test_a_pickle_is_never_executed(payload: str, legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "pytorch_model.bin"
    torch.save(PAYLOADS[payload](str(mark)), path, _use_new_zipfile_serialization=not legacy)
    message = refused(read_pickle, path)
    assert not mark.exists()
    assert "weights_only" not in message  # no advice to open the door


def test_the_payload_would_have_worked(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(PAYLOADS["os.system"](str(mark))))
    assert mark.exists()


def test_a_refusal_names_what_the_pickle_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": Calls(os.mkdir, "y")}, path)
    message = refused(read_pickle, path)
    assert "the pickle asks for 'posix.mkdir', which is no part of a table of weights; refused" in message


@pytest.mark.parametrize("legacy", [False, True])
def test_an_honest_pickle_is_read(legacy: bool, tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2).half(), "b": torch.nn.Parameter(torch.randn(4))}
    torch.save(OrderedDict(tensors), tmp_path / "x.bin", _use_new_zipfile_serialization=not legacy)
    found = read_pickle(tmp_path / "x.bin")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_weights_inside_a_training_checkpoint_are_found(wrapper: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, wrapper: {"a": torch.ones(2), "step": 5}}, tmp_path / "x.pt")
    assert torch.equal(read_pickle(tmp_path / "x.pt")["a"], torch.ones(2))


CONTENTS: dict[str, Any] = {
    "nothing": {},
    "a list": [torch.zeros(2)],
    "a tensor": torch.zeros(2),
    "numbers": {"a": 1, "b": "x"},
    "numbers as names": {1: torch.zeros(2)},
}


@pytest.mark.parametrize("content", list(CONTENTS))
def test_a_pickle_without_named_tensors_is_refused(content: str, tmp_path: Path) -> None:
    torch.save(CONTENTS[content], tmp_path / "x.bin")
    assert "holds no named tensors" in refused(read_pickle, tmp_path / "x.bin")


def test_a_small_file_cannot_claim_a_large_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**7)}, tmp_path / "x.bin")
    assert "claim 40,000,000 bytes, more than the file can hold" in refused(read_pickle, tmp_path / "x.bin")


def test_many_names_cannot_share_one_table(tmp_path: Path) -> None:
    table = torch.zeros(1000)
    torch.save({f"t{index}": table for index in range(50)}, tmp_path / "x.bin")
    assert "more than the file can hold" in refused(read_pickle, tmp_path / "x.bin")


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_only_dense_tables_become_weights(kind: str, tmp_path: Path) -> None:
    tensors = on_disk(tiny())
    name = "bert.pooler.dense.weight"
    tensors[name] = tensors[name].to_sparse() if kind == "sparse" else tensors[name].to("meta")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint(tmp_path)
    with pytest.raises(ModelError, match=f"'{name}' is not a dense table"):
        convert(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(), (5,), (2, 8), (25, 8)])
def test_a_fused_projection_that_is_no_three_matrices_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = on_disk(tiny()) | {"bert.encoder.layer.0.attention.self.qkv_linear.weight": torch.zeros(shape)}
    checkpoint(tmp_path, tensors)
    with pytest.raises(ModelError, match="qkv_linear.weight' has shape .*, which is not three matrices"):
        convert(str(tmp_path), tmp_path / "out")


def test_one_weight_under_two_names_is_refused(tmp_path: Path) -> None:
    tensors = on_disk(tiny())
    tensors["bert.embeddings.LayerNorm.gamma"] = torch.zeros(8)
    checkpoint(tmp_path, tensors)
    with pytest.raises(ModelError, match="'bert.embeddings.LayerNorm.weight' is there under two names"):
        convert(str(tmp_path), tmp_path / "out")


def test_a_tied_copy_of_another_type_or_shape_is_compared_without_failing(tmp_path: Path) -> None:
    tensors = on_disk(tiny())
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].double()
    tensors["cls.predictions.decoder.bias"] = torch.zeros(3)
    checkpoint(tmp_path, tensors)
    reasons = [one.reason for one in convert(str(tmp_path), tmp_path / "out").left_over]
    assert reasons[0].startswith("the same as bert.embeddings")
    assert reasons[1].startswith("differs from cls.predictions.bias")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(number: float, tmp_path: Path) -> None:
    tensors = on_disk(tiny())
    tensors["bert.encoder.layer.1.attention.self.key.weight"][3, 4] = number
    checkpoint(tmp_path, tensors)
    with pytest.raises(ModelError, match="'layers.1.attention.qkv.weight' holds numbers that are not finite"):
        convert(str(tmp_path), tmp_path / "out")


def archive(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in members:
            out.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "compression", "reason"),
    [
        ([("a/data.pkl", b"x"), ("a/data.pkl", b"y")], zipfile.ZIP_STORED, "two members of one name"),
        ([("../../etc/x", b"x")], zipfile.ZIP_STORED, "a member that points out of it"),
        ([("/etc/x", b"x")], zipfile.ZIP_STORED, "a member that points out of it"),
        ([("a\\..\\..\\x", b"x")], zipfile.ZIP_STORED, "a member that points out of it"),
        ([("a/data.pkl", b"0" * 10**6)], zipfile.ZIP_DEFLATED, "the archive is compressed, which torch never does"),
        ([("a/data.pkl", b"not a pickle")], zipfile.ZIP_STORED, "not a file of weights that can be read"),
        ([("readme.txt", b"hello")], zipfile.ZIP_STORED, "not a file of weights that can be read"),
    ],
)
def test_strange_archives_are_refused(
    members: list[tuple[str, bytes]], compression: int, reason: str, tmp_path: Path
) -> None:
    archive(tmp_path / "x.bin", members, compression)
    assert reason in refused(read_pickle, tmp_path / "x.bin")


def test_the_old_tar_format_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(Calls(os.mkdir, str(tmp_path / "executed")))
    with tarfile.open(tmp_path / "x.bin", "w") as out:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    assert "torch's old tar format is refused" in refused(read_pickle, tmp_path / "x.bin")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_pickle_is_refused(part: float, legacy: bool, tmp_path: Path) -> None:
    torch.save(on_disk(tiny()), tmp_path / "whole.bin", _use_new_zipfile_serialization=not legacy)
    content = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(content[: int(part * len(content))])
    refused(read_pickle, tmp_path / "x.bin")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_end_in_weights_or_in_a_reason(form: str, tmp_path: Path) -> None:
    encoder = tiny(layers=1, hidden=4, heads=1, feedforward=4)
    path, raw, random = tmp_path / "x", hugging_face_config(encoder.config), np.random.default_rng(5)
    if form == "safetensors":
        path.write_bytes(save(on_disk(encoder)))
    else:
        torch.save(on_disk(encoder), path, _use_new_zipfile_serialization=form == "zip")
    content, outcomes = path.read_bytes(), set()
    for _ in range(150):
        broken = bytearray(content)
        broken[random.integers(min(len(content), 3000))] ^= int(random.integers(1, 256))
        path.write_bytes(broken)
        try:
            assemble(read_safetensors(path) if form == "safetensors" else read_pickle(path), raw, "x")
            outcomes.add("read")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("key", ["model_type", "hidden_act", "position_embedding_type", "layer_norm_eps", "vocab_size"])
@pytest.mark.parametrize("value", [[], {}, 17, -1.5, "x", float("inf")])
def test_a_configuration_of_nonsense_is_refused(key: str, value: Any) -> None:
    encoder = tiny()
    with pytest.raises(ModelError):
        assemble(on_disk(encoder), {**hugging_face_config(encoder.config), key: value}, "here")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    for read in (read_pickle, read_safetensors, read_json):
        assert "No such file or directory" in refused(read, tmp_path / "x")
        refused(read, tmp_path)


def safetensors(header: Any, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LYING_HEADERS: dict[str, bytes] = {
    "empty file": b"",
    "shorter than its length field": b"\x01\x00",
    "no header": struct.pack("<Q", 0),
    "header longer than the file": safetensors({}, length=10**6),
    "header of petabytes": safetensors({}, length=2**60),
    "length that overflows": safetensors({}, length=2**64 - 1),
    "not JSON": safetensors(b"{nonsense"),
    "not UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "a list": safetensors([1, 2]),
    "no shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}),
    "unknown dtype": safetensors({"a": entry([4], [0, 16], "F31")}),
    "more data than the shape": safetensors({"a": entry([3], [0, 16])}),
    "less data than the shape": safetensors({"a": entry([5], [0, 16])}),
    "data beyond the file": safetensors({"a": entry([400], [0, 1600])}),
    "data before the file": safetensors({"a": entry([4], [-16, 0])}),
    "offsets the wrong way round": safetensors({"a": entry([4], [16, 0])}),
    "negative shape": safetensors({"a": entry([-4], [0, 16])}),
    "shape that overflows": safetensors({"a": entry([2**62, 4], [0, 16])}),
    "tensors that overlap": safetensors({"a": entry([4], [0, 16]), "b": entry([2], [8, 16])}),
    "a hole between tensors": safetensors({"a": entry([1], [0, 4]), "b": entry([1], [12, 16])}),
    "data that belongs to nobody": safetensors({"a": entry([2], [0, 8])}),
    "nested without end": safetensors(b'{"a":' + b"[" * 50_000),
}


@pytest.mark.parametrize("lie", list(LYING_HEADERS))
def test_lying_safetensors_headers_are_refused(lie: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(LYING_HEADERS[lie])
    assert "not a sound safetensors file" in refused(read_safetensors, tmp_path / "x.safetensors")


def test_a_configuration_of_a_billion_layers_is_refused_before_allocation(tmp_path: Path) -> None:
    checkpoint(tmp_path, on_disk(tiny()), num_hidden_layers=10**9)
    with pytest.raises(ModelError, match="'num_hidden_layers' is 1000000000; it must be a whole number from 1 to 1000"):
        convert(str(tmp_path), tmp_path / "out")


def test_a_model_larger_than_its_file_is_refused_before_allocation(tmp_path: Path) -> None:
    sizes = {"hidden_size": 65_536, "intermediate_size": 10**6, "num_hidden_layers": 50, "vocab_size": 4_000_000}
    checkpoint(tmp_path, on_disk(tiny()), **sizes)
    with pytest.raises(ModelError, match="has shape .27, 8., config.json asks for .4000000, 65536."):
        convert(str(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("key", ["_target_", "auto_map", "_attn_implementation_internal", "_instantiator", "__class__"])
def test_keys_that_name_code_mean_nothing(key: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, on_disk(tiny()), **{key: "os.system", "trust_remote_code": True})
    convert(str(tmp_path), tmp_path / "out")
    assert key not in (tmp_path / "out" / "config.json").read_text()


def test_a_configuration_too_large_to_be_one_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(100 * 2**20)
    assert "bytes are too many for a configuration" in refused(read_json, tmp_path / "config.json")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "config.json", ".."])
def test_an_index_cannot_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert "is not a weight file of the same folder" in refused(read_tensors, index)


@pytest.mark.parametrize("index", [{}, {"weight_map": ["x"]}, {"weight_map": {"a": 1}}])
def test_a_broken_index_is_refused(index: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert "'weight_map' does not name files" in refused(read_tensors, path)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret"
    folder.mkdir()
    checkpoint(folder, on_disk(tiny()))
    if (folder / name).exists():
        (folder / name).rename(secret)
    else:
        secret.write_text("{}")
    (folder / name).symlink_to(secret)
    with pytest.raises(ModelError, match="is a link out of its folder, to .*secret; refused"):
        convert(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshots" / "0123", tmp_path / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    checkpoint(folder, on_disk(tiny()))
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert convert(str(folder), tmp_path / "out").head == "trained"
