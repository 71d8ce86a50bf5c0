"""An engine's process, seen from the benchmark.

The benchmark itself loads no numerical library: a new process reports its parent's memory as its own peak where the
parent was larger.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decode_bench.work import Engine, Work

HERE = Path(__file__).parent.parent


class EngineError(Exception):
    """An engine's process ended before its answer; the text is the end of what it said."""


class Process:
    """One engine, waiting for work."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = os.environ | {"OMP_NUM_THREADS": str(engine.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore", "CT2_VERBOSE": "-2"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "decode_bench.child", str(folder), json.dumps(asdict(engine))]
        prepared = subprocess.run([*command, "prepare"], stderr=self.said, env=environment, check=False)
        if prepared.returncode:
            raise self._failure()
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment
        )

    def ask(self, asked: str, work: Work) -> dict[str, Any]:
        """The answer to one request; EngineError when there is none."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            print(json.dumps({"asked": asked, "work": asdict(work)}), file=self.child.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        line = self.child.stdout.readline()
        if not line:
            raise self._failure()
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends the process."""
        self.child.communicate()
        self.said.close()

    def _failure(self) -> EngineError:
        self.said.seek(0)
        return EngineError(f"{self.engine.label}: " + "\n".join(self.said.read().splitlines()[-15:]))
