"""One process at a time in a run folder.

The system's lock on the file `.lock` is the truth: it ends with the process that holds it, however that ends. What the
file says (who holds it) is for the message alone. The file stays: to remove it would let two in.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from unilmctl.errors import UserError
from unilmctl.files import write_errors

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within the block no other process may have the folder, which is made if need be. UserError when one has it."""
    path = folder / LOCK
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        if not _take(file):
            file.seek(0)
            who = file.read().strip() or "another process"
            hint = "wait until it has ended, or give the recipe another `run` folder"
            raise UserError(f"{folder}: {who} is training here", hint)
        _sign(file, f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _sign(file, "")


def _take(file: TextIO) -> bool:
    """Whether the lock is ours now. A file system that knows no locks gives it to everyone."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _sign(file: TextIO, text: str) -> None:
    with write_errors(Path(file.name)):
        file.truncate(0)
        file.write(text)
        file.flush()
