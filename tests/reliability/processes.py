"""Runs a command line in a process of its own, with as little memory and time as it should need."""

import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unilmctl.cli import run

GIB = 2**30


class Done(NamedTuple):
    """How a process ended: its exit code (negative: the signal that killed it), and what it said."""

    code: int
    out: str
    err: str


def resident(process: int) -> int:
    """Bytes of memory a process holds now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_apart(arguments: Sequence[str], folder: Path, *, memory: int = GIB, seconds: int = 30) -> Done:
    """Runs `unilmctl ARGUMENTS` in `folder`, in a copy of this process; `memory` is what it may add, in bytes."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if not child:
        _become(arguments, folder, out, err, memory, seconds)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = Done(code, out.read_text(errors="replace"), err.read_text(errors="replace"))
    out.unlink()
    err.unlink()
    return said


def _become(arguments: Sequence[str], folder: Path, out: Path, err: Path, memory: int, seconds: int) -> None:
    """What the new process does; it never returns."""
    code = 99
    try:
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        import sys

        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115, PTH123
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(seconds)
        try:
            code = run(arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
