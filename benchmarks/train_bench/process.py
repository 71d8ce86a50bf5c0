"""An engine's process, from both sides: one request a line on standard input, one answer a line on standard output.

python -m train_bench.process ENGINE    ENGINE: the fields of `work.Engine` as JSON
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train_bench.work import Done, Engine

HERE = Path(__file__).parent.parent


class EngineError(Exception):
    """An engine's process ended before its answer; the text is the end of what it said."""


class Process:
    """One engine, waiting for work."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = os.environ | {"OMP_NUM_THREADS": str(engine.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        self.child = subprocess.Popen(
            [sys.executable, "-m", "train_bench.process", json.dumps(engine)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=environment,
        )

    def step(self, **asked: Any) -> Done:
        """One step on the examples that are asked for; EngineError when there is none."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            print(json.dumps(asked), file=self.child.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        line = self.child.stdout.readline()
        if not line:
            raise self._failure()
        return Done(*json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        self.child.communicate()
        self.said.close()

    def _failure(self) -> EngineError:
        self.said.seek(0)
        return EngineError(f"{self.engine.label}: " + "\n".join(self.said.read().splitlines()[-15:]))


def timed(engine: Engine, work: Callable[[], Any]) -> float:
    """Seconds that `work` takes: of the CPU on one thread, else of the wall."""
    clock = time.process_time if engine.threads == 1 else time.perf_counter
    began = clock()
    work()
    return clock() - began


def load(engine: Engine) -> Any:
    """The engine itself; only its own library is loaded."""
    if engine.program == "Hugging Face":
        from train_bench.hugging_face import HuggingFace

        return HuggingFace(engine)
    if engine.program == "s2s-ft's way":
        from train_bench.twin import SlowTwin

        return SlowTwin(engine)
    if engine.program == "products":
        from train_bench.products import Products

        return Products(engine)
    from train_bench.ours import Ours

    return Ours(engine)


def main() -> None:
    """Answers until standard input ends."""
    engine = Engine(*json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    loaded = load(engine)
    for line in sys.stdin:
        print(json.dumps(loaded.step(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
