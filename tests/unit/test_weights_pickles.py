"""Hostile pickles and archives: nothing in them is ever executed, and every refusal says why (exit code 5)."""

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import checkpoint, on_disk, refused, tiny

from unilmctl.errors import ModelError
from unilmctl.weights import convert
from unilmctl.weights.reading import read_pickle


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


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


@pytest.mark.parametrize("size", [2**40, 2**60, 2**80, None])
def test_a_tar_that_lies_about_its_sizes_is_refused(size: int | None, tmp_path: Path) -> None:
    """A name or a table of names of any size; None: a thousand tables, each of the one after it."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, size or 1
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.bin").write_bytes((header + b"x".ljust(512, b"\0")) * (2000 if size is None else 1))
    assert "torch's old tar format is refused" in refused(read_pickle, tmp_path / "x.bin")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_pickle_is_refused(part: float, legacy: bool, tmp_path: Path) -> None:
    torch.save(on_disk(tiny()), tmp_path / "whole.bin", _use_new_zipfile_serialization=not legacy)
    content = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(content[: int(part * len(content))])
    refused(read_pickle, tmp_path / "x.bin")
