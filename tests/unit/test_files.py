"""Files that are either whole or not there."""

import errno
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from unilmctl import files
from unilmctl.errors import WriteError
from unilmctl.files import (
    MANIFEST,
    beside_of,
    clear_leftovers,
    publish_folder,
    sha256,
    verify_manifest,
    write_atomically,
    write_manifest,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_written_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    with write_atomically(path) as file:
        file.write(b"one")
        assert not path.exists()
    with write_atomically(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.json"]


def test_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write() -> None:
        with write_atomically(path) as file:
            file.write(b"new")
            raise KeyError("of the caller")

    with pytest.raises(KeyError):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = (
        "import os, sys, pathlib, unilmctl.files as f\n"
        "with f.write_atomically(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'new' * 100000); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2  # what was begun
    clear_leftovers(path)
    assert names(tmp_path) == ["a"]


def test_leftovers_of_living_processes_stay(tmp_path: Path) -> None:
    (tmp_path / f".store.tmp-{platform.node()}-{os.getppid()}").mkdir()
    (tmp_path / ".store.tmp-elsewhere-1").mkdir()
    beside_of(tmp_path / "store").mkdir()
    clear_leftovers(tmp_path / "store")
    assert len(names(tmp_path)) == 2
    clear_leftovers(tmp_path / "no-such" / "store")


def test_a_full_disk_is_a_write_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = (
        "import resource, sys, pathlib, signal, unilmctl.files as f\n"
        "from unilmctl.errors import WriteError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with f.write_atomically(pathlib.Path(sys.argv[1])) as file: file.write(b'n' * 100000)\n"
        "except WriteError as error: print(error.message); sys.exit(error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 74
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_no_room_has_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    refused = pytest.raises(WriteError, match=r"cannot write .*/a: No space left on device")
    with refused as caught, write_atomically(tmp_path / "a") as file:
        file.write(b"x")
    assert caught.value.hint == "make room on the disk, or write somewhere else"
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot write .*/a/b"), write_atomically(tmp_path / "a" / "b"):
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "a").write_bytes(b"alpha")
    (made / "inner" / "b").write_bytes(b"beta")
    return made


def test_manifest_lists_size_and_sha256(folder: Path) -> None:
    write_manifest(folder)
    listed = json.loads((folder / MANIFEST).read_bytes())["files"]
    assert listed["a"] == {"size": 5, "sha256": sha256(folder / "a")}
    assert sorted(listed) == ["a", "inner/b"]
    assert verify_manifest(folder) == []


def test_every_flipped_byte_is_found(folder: Path) -> None:
    write_manifest(folder)
    for name in ("a", "inner/b"):
        content = (folder / name).read_bytes()
        for place in range(len(content)):
            (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert verify_manifest(folder) == [
                f"{folder / name}: its contents have changed (sha256 differs from the manifest)"
            ]
        (folder / name).write_bytes(content)


def test_problems_are_listed(folder: Path) -> None:
    write_manifest(folder)
    (folder / "a").write_bytes(b"alph")
    (folder / "inner" / "b").unlink()
    (folder / "new").write_bytes(b"")
    assert verify_manifest(folder) == [
        f"{folder}/new: is not in the manifest",
        f"{folder}/a: has 4 bytes, the manifest says 5",
        f"{folder}/inner/b: is missing",
    ]


ENDLESS = b'{\n "files": {\n  "a": {\n   "sha256": "",\n   "size": Infinity\n  }\n }\n}\n'
"""Written as a manifest is, of a file without end."""


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"files": {"a": 1}}',
        b'{"files": {"a": {"size": "x"}}}',
        b"[" * 100_000,
        ENDLESS,
    ],
)
def test_broken_manifest_is_a_problem(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / MANIFEST).write_bytes(content)
    (problem,) = verify_manifest(folder)
    assert problem.startswith(f"{folder / MANIFEST}: missing or unreadable")


def test_manifest_cannot_point_outside(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(b"x")
    listed = {"files": {"../secret": {"sha256": "", "size": 1}}}
    (folder / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n")
    assert f"{folder / '../secret'}: is missing" in verify_manifest(folder)


def test_published_folder_replaces_the_old_one(folder: Path, tmp_path: Path) -> None:
    final = tmp_path / "runs" / "final"
    publish_folder(folder, final)
    assert names(final) == [MANIFEST, "a", "inner"]
    assert verify_manifest(final) == []
    assert not folder.exists()
    folder.mkdir()
    (folder / "c").write_bytes(b"gamma")
    publish_folder(folder, final)
    assert names(final) == [MANIFEST, "c"]
    assert names(final.parent) == ["final"]


def test_publishing_fails_without_harm(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").write_bytes(b"")

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(WriteError, match="Input/output error"):
        publish_folder(folder, final)
    assert names(final) == ["old"]
