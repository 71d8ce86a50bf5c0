"""Folders and files that mean harm: whatever they hold, nothing of it runs, nothing outside their folder is read or
written, memory stays bounded, and the command ends with exit code 5 and a reason.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_apart
from test_weights_safety import entry, safetensors
from tiny_bundles import written
from tiny_checkpoints import checkpoint, on_disk, tiny

from unilmctl.tokens import train
from unilmctl.weights import ModelCard, save_model

TEXTS = ["a b c d e f g h i j", "some words to read", "other words"]


def zipped(path: Path, content: bytes, **members: bytes) -> None:
    """A pickle as torch wraps it."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", content)
        out.writestr("archive/version", b"3\n")
        out.writestr("archive/byteorder", b"little")
        for name, data in members.items():
            out.writestr(f"archive/data/{name.removeprefix('_')}", data)


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


def call(module: str, name: str, *arguments: str) -> bytes:
    """Opcodes of protocol 2 that call a function."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(map(text, arguments)) + b"tR"


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor(offset: bytes = b"K\x00", shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85") -> bytes:
    """Opcodes of a table whose description is what it is told to be."""
    return b"\x80\x02}" + text("a") + TENSOR + b"(" + STORAGE + offset + shape + stride + b"\x89}tRs."


TABLE = TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tR"
HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)
NEGATIVE = b"J" + struct.pack("<i", -4)
START = b"\x80\x02"

OPCODES: dict[str, bytes] = {
    "os.system": START + call("os", "system", "touch done") + b".",
    "posix.system, protocol 0": b"cposix\nsystem\n(S'touch done'\ntR.",
    "subprocess": START + call("subprocess", "getoutput", "touch done") + b".",
    "a name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + text("touch done") + b"tR.",
    "an instance": b"(S'touch done'\nios\nsystem\n.",
    "an object": START + b"(cos\nsystem\n" + text("touch done") + b"o.",
    "a new object": START + b"cos\nsystem\n(" + text("touch done") + b"t\x81.",
    "an extension": START + b"\x82\x01.",
    "eval through builtins": START + call("builtins", "eval", "open('done','w')") + b".",
    "getattr of a tensor": START + call("builtins", "getattr", "a", "b") + b".",
    "torch.load again": START + call("torch", "load", "done") + b".",
    "torch.jit.load": START + call("torch.jit", "load", "done") + b".",
    "numpy.load": START + call("numpy", "load", "done") + b".",
    "runpy": START + call("runpy", "run_path", "done") + b".",
    "importlib": START + call("importlib", "import_module", "antigravity") + b".",
    "lightning's instantiator": START + b"}" + text("_instantiator") + call("lightning.pytorch.cli", "x") + b"s.",
    "build into a function": START + b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "items set on a tensor": tensor()[:2] + TABLE + b"(K\x00K\x01u.",
    "state built into a tensor": tensor()[:2] + TABLE + b"}b.",
    "a tensor appended to": tensor()[:2] + TABLE + b"K\x01a.",
    "a memo of two billion": START + b"}r\xff\xff\xff\x7f.",
    "a memo that is not there": START + b"j\xff\xff\xff\x7f.",
    "a text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.",
    "bytes of four gigabytes": START + b"B" + struct.pack("<I", 2**32 - 1) + b"a.",
    "a number of two gigabytes": START + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "a number of negative length": START + b"\x8b" + struct.pack("<i", -1) + b"a.",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",
    "an empty stack": START + b"t.",
    "a million marks": START + b"(" * 1_000_000 + b".",
    "tuples in tuples": START + b")" + b"\x85" * 200_000 + b".",
    "lists in lists": START + b"]" * 200_000 + b"a" * 199_999 + b".",
    "a list that holds itself": START + b"]q\x00h\x00a.",
    "no end": START + b"}",
    "unknown opcodes": START + bytes(range(128, 256)),
    "an offset beyond the storage": tensor(offset=HUGE),
    "a negative offset": tensor(offset=NEGATIVE),
    "a shape beyond the storage": tensor(shape=HUGE + b"\x85"),
    "a shape that overflows": tensor(shape=HUGE + HUGE + b"\x86", stride=b"K\x01K\x01\x86"),
    "a negative shape": tensor(shape=NEGATIVE + b"\x85"),
    "a stride beyond the storage": tensor(stride=HUGE + b"\x85"),
    "a negative stride": tensor(stride=NEGATIVE + b"\x85"),
    "more strides than shape": tensor(stride=b"K\x01K\x01\x86"),
    "a shape of text": tensor(shape=text("a") + b"\x85"),
    "a storage of another name": tensor().replace(text("0"), text("../../x")),
    "a storage of another place": tensor().replace(text("cpu"), text("cuda:99")),
    "a storage larger than its data": tensor().replace(b"K\x04tQ", HUGE + b"tQ"),
    "a storage of negative size": tensor().replace(b"K\x04tQ", NEGATIVE + b"tQ"),
    "a storage that is no tuple": START + b"K\x05Q.",
    "a storage of no type": tensor().replace(b"ctorch\nFloatStorage\n", b"cos\nsystem\n"),
}  # fmt: skip


def folder_of(path: Path) -> Path:
    """An honest checkpoint, with pickled weights."""
    folder = path / "model"
    folder.mkdir()
    checkpoint(folder)
    torch.save(on_disk(tiny()), folder / "pytorch_model.bin")
    return folder


def refused_by(path: Path, *arguments: str) -> str:
    """The reason with which a command refuses; nothing else has happened in its folder."""
    before = sorted(map(str, path.rglob("*")))
    done = run_apart(arguments, path)
    assert done.code == 5, done
    assert done.err.startswith("error: "), done
    assert "Traceback" not in done.err
    assert done.out == ""
    assert sorted(map(str, path.rglob("*"))) == before
    assert len(done.err) < 3000
    return done.err


@pytest.mark.parametrize("kind", OPCODES)
def test_a_pickle_of_any_opcodes_is_refused(kind: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    zipped(folder / "pytorch_model.bin", OPCODES[kind], _0=bytes(16))
    refused_by(tmp_path, "convert", "model", "out")


def test_the_frame_of_these_pickles_is_sound(tmp_path: Path) -> None:
    zipped(tmp_path / "x.bin", tensor(), _0=struct.pack("<4f", 1, 2, 3, 4))
    assert torch.load(tmp_path / "x.bin", weights_only=True)["a"].tolist() == [1, 2, 3, 4]
    assert run_apart(["--version"], tmp_path).code == 0


@pytest.mark.reliability
@pytest.mark.parametrize("seed", range(60))
def test_pickles_with_flipped_opcodes_end_in_a_reason(seed: int, tmp_path: Path) -> None:
    folder, random = folder_of(tmp_path), np.random.default_rng(seed)
    whole = pickle.dumps({"a": [1, "b", (2.5, {"c": None})], "d": b"x" * 40}, protocol=seed % 5)
    content = bytearray(whole if seed % 2 else tensor())
    for _ in range(3):
        content[random.integers(2, len(content))] = random.integers(256)
    zipped(folder / "pytorch_model.bin", bytes(content), _0=bytes(16))
    refused_by(tmp_path, "convert", "model", "out")


def a_link(name: str, target: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def a_pipe(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def content(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def config(**changes: object) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def weights(data: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "pytorch_model.bin").unlink()
        (folder / "model.safetensors").write_bytes(data)

    return make


def index(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "pytorch_model.bin").unlink()
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    return make


def sparse(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(2**41)

    return make


def old_tar(folder: Path) -> None:
    with tarfile.open(folder / "pytorch_model.bin", "w") as out:
        member = tarfile.TarInfo("../../done")
        member.size = 4
        out.addfile(member, io.BytesIO(b"evil"))


def bundle(name: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "pytorch_model.bin").unlink()
        written(folder / "model", [{b"": b"\x08\x01", name: b"\x08\x01\x12\x04\x12\x02\x08\x7f"}])

    return make


BILLION = 10**9
FOLDERS: dict[str, Callable[[Path], object]] = {
    "an old tar": old_tar,
    "a billion layers": config(num_hidden_layers=BILLION),
    "a billion positions": config(max_position_embeddings=BILLION),
    "a billion words": config(vocab_size=BILLION),
    "a billion heads": config(num_attention_heads=BILLION),
    "a billion segments": config(type_vocab_size=BILLION),
    "a width of a billion": config(hidden_size=BILLION),
    "a feed-forward of a billion": config(intermediate_size=BILLION),
    "layers beyond 64 bits": config(num_hidden_layers=10**30),
    "layers below zero": config(num_hidden_layers=-1),
    "no layers": config(num_hidden_layers=0),
    "layers that are text": config(num_hidden_layers="2; touch done"),
    "a model type that is a path": config(model_type="../../x"),
    "an activation that is code": config(hidden_act="__import__('os').system('touch done')"),
    "an epsilon of infinity": config(layer_norm_eps=float("inf")),
    "a configuration of brackets": content("config.json", b"[" * 2_000_000),
    "a configuration of objects": content("config.json", b'{"a":' * 100_000),
    "a configuration of numbers": content("config.json", b'{"hidden_size": ' + b"9" * 100_000 + b"}"),
    "a configuration of two terabytes": sparse("config.json"),
    "a configuration of NULs": content("config.json", bytes(1000)),
    "a configuration that is a pipe": a_pipe("config.json"),
    "a configuration that is a device": a_link("config.json", "/dev/zero"),
    "a configuration elsewhere": a_link("config.json", "/etc/hostname"),
    "weights of two terabytes": sparse("pytorch_model.bin"),
    "weights that are a pipe": a_pipe("pytorch_model.bin"),
    "weights that are a device": a_link("pytorch_model.bin", "/dev/zero"),
    "weights elsewhere": a_link("pytorch_model.bin", "../secret"),
    "weights that lead to themselves": a_link("pytorch_model.bin", "pytorch_model.bin"),
    "weights that are a script": content("pytorch_model.bin", b"#!/bin/sh\ntouch done\n"),
    "weights that are an ELF": content("pytorch_model.bin", b"\x7fELF" + bytes(100)),
    "a zip of nothing": content("pytorch_model.bin", b"PK\x05\x06" + bytes(18)),
    "a zip whose directory lies": content("pytorch_model.bin", b"PK\x05\x06" + b"\xff" * 16 + bytes(2)),
    "an index to elsewhere": index("../secret.bin"),
    "an index to the root": index("/etc/passwd"),
    "an index to itself": index("pytorch_model.bin.index.json"),
    "an index to nothing": index("absent.bin"),
    "an index with a NUL": index("a\0.bin"),
    "an index of names without end": index("a" * 5000 + ".bin"),
    "a header of an exabyte": weights(safetensors({}, length=2**60)),
    "a header that overflows": weights(safetensors({}, length=2**64 - 1)),
    "a shape that overflows": weights(safetensors({"a": entry([2**62, 4], [0, 16])})),
    "a header of brackets": weights(safetensors(b'{"a":' + b"[" * 90_000)),
    "an honest file of nothing": weights(safetensors({}, b"")),
    "vocabulary that is a pipe": a_pipe("vocab.txt"),
    "vocabulary of two terabytes": sparse("vocab.txt"),
    "vocabulary elsewhere": a_link("vocab.txt", "/etc/hostname"),
    "vocabulary that is a device": a_link("vocab.txt", "/dev/zero"),
    "vocabulary that is not UTF-8": content("vocab.txt", b"\xff\xfe\n" * 27),
    "vocabulary of blank lines": content("vocab.txt", b"\n" * 27),
    "vocabulary of one word again": content("vocab.txt", b"[PAD]\n" * 27),
    "vocabulary of NULs": content("vocab.txt", b"\0\n" * 27),
    "an empty vocabulary": content("vocab.txt", b""),
    "a tokenizer of brackets": content("tokenizer.json", b"[" * 100_000),
    "a tokenizer of nonsense": content("tokenizer.json", b'{"model": {"type": "Evil"}}'),
    "a tokenizer that is a list": content("tokenizer.json", b"[]"),
    "a tokenizer of two terabytes": sparse("tokenizer.json"),
    "settings of a tokenizer that are a list": content("tokenizer_config.json", b"[]"),
    "settings of a tokenizer of two terabytes": sparse("tokenizer_config.json"),
    "a TensorFlow index that is a pipe": lambda folder: [
        (folder / "pytorch_model.bin").unlink(),
        a_pipe("model.ckpt.index")(folder),
    ],
    "a TensorFlow index of lies": bundle(b"bert/embeddings/word_embeddings"),
    "a TensorFlow name that is a path": bundle(b"../../../x"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_means_harm_is_refused(kind: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (tmp_path / "secret").write_text("{}")
    FOLDERS[kind](folder)
    refused_by(tmp_path, "convert", "model", "out")


CODE_KEYS = {
    "_target_": "os.system",
    "auto_map": {"AutoModel": "evil--module.Evil"},
    "_attn_implementation_internal": "evil/kernels",
    "_attn_implementation": "evil/kernels",
    "_instantiator": "os.system",
    "custom_pipelines": {"x": {"impl": "os.system"}},
    "quantization_config": {"quant_method": "evil", "load": "os.system"},
    "__reduce__": ["os.system", ["touch done"]],
    "trust_remote_code": True,
    "architectures": ["os.system"],
    "tokenizer_class": "os.system",
    "_name_or_path": "../../../etc/passwd",
}


@pytest.mark.parametrize("key", CODE_KEYS)
def test_a_key_that_names_code_means_nothing(key: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    config(**{key: CODE_KEYS[key]})(folder)
    (folder / "modeling_evil.py").write_text("open('done', 'w')")
    (folder / "evil.py").write_text("open('done', 'w')")
    assert run_apart(["convert", "model", "out"], tmp_path).code == 0
    assert not list(tmp_path.rglob("done"))
    assert not list((tmp_path / "out").rglob("*.py"))


def number(field: int, data: bytes) -> bytes:
    """A field of a protobuf message that holds bytes."""
    from tiny_bundles import text as field_of

    return field_of(field, data)


def piece(content: bytes, kind: int = 1) -> bytes:
    return number(1, number(1, content) + b"\x15" + struct.pack("<f", -1.0) + bytes([3 << 3, kind]))


def charsmap(data: bytes) -> bytes:
    return number(3, number(2, data))


PIECES: dict[str, Callable[[bytes], bytes]] = {
    "a piece of 100 KB": lambda model: model + piece(b"a" * 100_000),
    "a piece of a NUL": lambda model: model + piece(b"\0"),
    "a piece of nothing": lambda model: model + piece(b""),
    "a piece twice": lambda model: model + piece(b"zz") * 2,
    "a piece that is not UTF-8": lambda model: model + piece(b"\xff\xfe"),
    "a piece of an unknown kind": lambda model: model + piece(b"zz", 99),
    "two unknown pieces": lambda model: model + piece(b"zz", 2),
    "a map of characters without end": lambda model: model + charsmap(struct.pack("<I", 2**32 - 1) + bytes(64)),
    "a map of characters of nothing": lambda model: model + charsmap(b"\0"),
    "a map of characters that leads out": lambda model: model + charsmap(
        struct.pack("<I", 1024) + b"\xff\xff\xff\x7f" * 256 + b"a\0"
    ),
    "a map of characters that ends in the middle": lambda model: model + charsmap(
        struct.pack("<I", 1024) + bytes(1024) + b"abc"
    ),
    "half of it": lambda model: model[: len(model) // 2],
    "nothing": lambda model: b"",
    "noise": lambda model: bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)),
    "a length of an exabyte": lambda model: model + b"\x0a" + b"\xff" * 8 + b"\x7f",
    "a group without end": lambda model: model + b"\x0b" * 10_000,
    "no unknown piece": lambda model: piece(b"a") * 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def written_with_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a SentencePiece vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "model"
    tokenizer = train(TEXTS, kind="sentencepiece", size=300)
    save_model(folder, tiny(vocabulary=tokenizer.size), ModelCard(max_source=9, max_target=5), tokenizer)
    return folder


@pytest.mark.parametrize("kind", PIECES)
def test_a_sentencepiece_model_that_means_harm_is_refused_or_harmless(
    kind: str, written_with_pieces: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(written_with_pieces, tmp_path / "model")
    (file,) = (tmp_path / "model").glob("*.model")
    file.write_bytes(PIECES[kind](file.read_bytes()))
    (tmp_path / "in.txt").write_text("a b some words\n\u3000ａ zz\n")
    done = run_apart(["generate", "in.txt", "--model", "model"], tmp_path)
    assert "Traceback" not in done.err
    assert done.code == 5 or (done.code, done.out.count("\n")) == (0, 2), done
