"""What the benchmarks share that set our engine beside others: processes that wait for work, rows, goals.

No numerical library is loaded here: a new process reports its parent's memory as its own peak where the parent was
larger.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

HERE = Path(__file__).parent


class EngineError(Exception):
    """An engine's process ended before its answer; the text is the end of what it said."""


class Process:
    """One engine, waiting for work: a request a line on standard input, an answer a line on standard output."""

    def __init__(self, label: str, program: Sequence[str], *, threads: int, prepare: Sequence[str] = ()) -> None:
        """`program` are Python's arguments. With `prepare` it is first run with those arguments as well, to its end."""
        self.label = label
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore", "CT2_VERBOSE": "-2"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, *program]
        if prepare:
            prepared = subprocess.run([*command, *prepare], stderr=self.said, env=environment, check=False)
            if prepared.returncode:
                raise self._failure()
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment
        )

    def answer(self, request: Any) -> Any:
        """The answer to one request; EngineError when there is none."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            print(json.dumps(request), file=self.child.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        line = self.child.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.child.communicate()
        self.said.close()

    def _failure(self) -> EngineError:
        self.said.seek(0)
        return EngineError(f"{self.label}: " + "\n".join(self.said.read().splitlines()[-15:]))


class Row(TypedDict):
    """One line of a result; without a goal it is for information."""

    name: str
    ours: float
    peer: float
    ratio: float
    goal: float | None


def missed(rows: Sequence[Row]) -> list[Row]:
    """Rows whose goal was not reached."""
    return [one for one in rows if one["goal"] is not None and one["ratio"] < one["goal"]]


def line(row: Row, *, width: int = 84) -> str:
    """A row as the table shows it, its name in so many columns."""
    goal = row["goal"]
    verdict = "" if goal is None else f"goal {goal:6.2f}  {'reached' if row['ratio'] >= goal else 'MISSED'}"
    return f"{row['name']:{width}} {row['ours']:8.2f} {row['peer']:8.2f}  x{row['ratio']:6.2f}  {verdict}".rstrip()
