"""Files that are either whole or not there.

A file is written beside its place, synced to the disk and renamed over it; a folder likewise, with a MANIFEST.json that
holds the size and sha256 of every file in it. A crash at any moment leaves the old state or the new one. Whatever the
operating system refuses becomes a `WriteError` that names the path.
"""

import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from unilmctl.errors import WriteError

MANIFEST = "MANIFEST.json"


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a WriteError that names `path`."""
    try:
        yield
    except OSError as error:
        hint = "make room on the disk, or write somewhere else" if error.errno in _NO_ROOM else None
        raise WriteError(f"cannot write {path}: {error.strerror or error}", hint) from error


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    Missing parent folders are made. An exception of the block itself passes through; a refusal of the operating
    system is a WriteError.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = beside_of(path)
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_manifest(folder: Path) -> None:
    """Write MANIFEST.json: `{"files": {name: {"size", "sha256"}}}` for every file below `folder`."""
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in _names(folder)}
    with write_atomically(folder / MANIFEST) as file:
        file.write(_written(files))


def verify_manifest(folder: Path) -> list[str]:
    """What differs between `folder` and its MANIFEST.json, one line per problem; an empty list means intact."""
    try:
        listed = _listed(folder)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        return [f"{folder / MANIFEST}: missing or unreadable ({error})"]
    present = set(_names(folder))
    problems = [f"{folder / name}: is not in the manifest" for name in sorted(present - set(listed))]
    for name, (size, digest) in sorted(listed.items()):
        path = folder / name
        if name not in present:
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != size:
            problems.append(f"{path}: has {path.stat().st_size} bytes, the manifest says {size}")
        elif sha256(path) != digest:
            problems.append(f"{path}: its contents have changed (sha256 differs from the manifest)")
    return problems


def publish_folder(temporary: Path, final: Path) -> None:
    """Make `temporary` the folder `final`: manifest, sync every file, rename, sync the parent.

    A folder that is already at `final` is moved aside first and removed afterwards; after a crash between the two
    renames there is no `final`, never a mixture, and `restore_folders` puts back what it was. Both must lie on one
    file system.
    """
    write_manifest(temporary)
    with write_errors(final):
        for path in temporary.rglob("*"):
            _sync_folder(path) if path.is_dir() else _sync_file(path)
        _sync_folder(temporary)
        final.parent.mkdir(parents=True, exist_ok=True)
        old = beside_of(final, "old")
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        temporary.rename(final)
        _sync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Puts back the folders that `publish_folder` had moved aside when a crash kept it from the second rename."""
    for left in sorted(parent.glob(".*.old-*")):
        final = left.with_name(left.name[1:].partition(".old-")[0])
        if not final.exists():
            with write_errors(final):
                left.rename(final)


def beside_of(path: Path, purpose: str = "tmp") -> Path:
    """A hidden name next to `path`, private to this process, for what is not finished yet."""
    return path.with_name(f".{path.name}.{purpose}-{platform.node()}-{os.getpid()}")


def clear_leftovers(path: Path) -> None:
    """Remove what this process, or dead ones on this machine, left unfinished beside `path`."""
    prefix = f".{path.name}.tmp-{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(prefix)}*") if path.parent.is_dir() else ():
        process = left.name.removeprefix(prefix)
        if process == str(os.getpid()) or (process.isdecimal() and not _runs(int(process))):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


_NO_ROOM = {28, 122}  # ENOSPC, EDQUOT


def _names(folder: Path) -> list[str]:
    """Every file below `folder` but the manifest and unfinished ones, as sorted relative names."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name != MANIFEST and ".tmp-" not in path.name)


def _written(files: dict[str, Any]) -> bytes:
    """The one way in which a manifest is written: a byte that differs is a byte that has changed."""
    return (json.dumps({"files": files}, indent=1, sort_keys=True) + "\n").encode()


def _listed(folder: Path) -> dict[str, tuple[int, str]]:
    """The manifest's entries: name -> (size, sha256). ValueError when it is not a manifest."""
    content = (folder / MANIFEST).read_bytes()
    manifest = json.loads(content)
    try:
        if content != _written(manifest["files"]):
            raise ValueError("its contents have changed")
        return {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from error


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
