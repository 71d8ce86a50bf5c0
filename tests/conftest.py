"""What every test relies on: no network, one thread, no colour, interrupts, a folder of its own to run commands in."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "UNILMCTL_DEBUG"):
    os.environ.pop(name, None)
# A shell that starts the tests in the background has them ignore it, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Unilmctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _closed_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection that leaves the machine."""

    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a test tried to connect to {address}")

    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1")):
            connect(self, address)  # type: ignore[arg-type]
        else:
            refuse(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)


@pytest.fixture
def unilmctl(tmp_path: Path) -> Unilmctl:
    """Runs `unilmctl` in a process of its own, in the test's folder; gives exit code, stdout and stderr as text."""

    def run(*arguments: object, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "unilmctl", *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, cwd=tmp_path, timeout=timeout, check=False
        )

    return run
