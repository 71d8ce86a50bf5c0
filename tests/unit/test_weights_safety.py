"""Hostile checkpoints: nothing they claim is believed, and every refusal says why (exit 5)."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_checkpoints import checkpoint, on_disk, refused, tiny

from unilmctl.errors import ModelError
from unilmctl.weights import convert
from unilmctl.weights.assembling import assemble
from unilmctl.weights.configuration import hugging_face_config
from unilmctl.weights.reading import read_json, read_pickle, read_safetensors
from unilmctl.weights.sources import read_tensors


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
