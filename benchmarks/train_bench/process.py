"""An engine's process, from both sides.

python -m train_bench.process ENGINE    ENGINE: the fields of `work.Engine` as JSON
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import beside

from train_bench.work import Done, Engine


class Process(beside.Process):
    """One engine, waiting for work."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.label, ["-m", "train_bench.process", json.dumps(engine)], threads=engine.threads)

    def step(self, **asked: Any) -> Done:
        """One step on the examples that are asked for; EngineError when there is none."""
        return Done(*self.answer(asked))


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
