"""Tokens a second of our training against other programs that train the same model, and against the machine's limit.

All models have random weights of BERT-base size. What counts are the tokens of the examples, special ones included, and
neither padding nor second copies. A step is all of it: forward, backward, clipping, update; its time is that of the CPU
on one thread, else of the wall. Each engine has a process of its own, and they take turns; its first step, whose memory
is all new, does not count.

The slow twin (s2s-ft's way) pads every example to source + 2 x target maximum, in float32, as there is no other way
on a CPU. Peers get examples at random; ours takes them in order of length, from an epoch of 2048.

    python benchmarks/train_speed.py            both distributions of lengths, one thread and two
    python benchmarks/train_speed.py --quick    E2E lengths, one thread, 8 examples: under five minutes when idle
    python benchmarks/train_speed.py --only 'matrix products'    rows whose names match

Where there is a GPU, the speed of BERT-base and BERT-large on it follows (`train_bench.gpu`), without a goal.
The exit status is 1 when a goal is missed.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from beside import EngineError, Row, line, missed
from train_bench import gpu
from train_bench.goals import Comparison, comparisons, row
from train_bench.process import Process
from train_bench.work import Engine

EXAMPLES = {"E2E": 32, "CNN/DM": 8}
QUICK = {"E2E": 8}
PLACES = (0.5, 0.25, 0.75)


class Bench:
    """Processes on demand, and what they did."""

    def __init__(self, *, repeats: int) -> None:
        self.repeats = repeats
        self.processes: dict[Engine, Process] = {}

    def rows(self, chosen: Sequence[Comparison], lengths: str, examples: int) -> Iterator[Row]:
        """The rows of comparisons on one distribution of lengths, engines interleaved."""
        engines = dict.fromkeys(engine for one in chosen for engine in (one.ours, one.peer))
        rates: dict[Engine, list[float]] = {engine: [] for engine in engines}
        work = {}
        for repeat in range(self.repeats):
            place = PLACES[repeat % len(PLACES)]
            for engine in sorted(engines, key=lambda one: one.program == "products"):
                if engine.program == "products":
                    done = work[engine._replace(program="unilmctl")]
                    seconds = self._process(engine).step(row_tokens=done.row_tokens, labels=done.labels).seconds
                    rates[engine].append(done.tokens / seconds)
                else:
                    if not repeat:
                        self._process(engine).step(lengths=lengths, examples=examples, place=place)  # with new memory
                    work[engine] = done = self._process(engine).step(lengths=lengths, examples=examples, place=place)
                    rates[engine].append(done.tokens / done.seconds)
                print(f"    {rates[engine][-1]:8.1f} tokens/s  {engine.label}", file=sys.stderr, flush=True)
        for one in chosen:
            yield row(one, rates[one.ours], rates[one.peer])

    def _process(self, engine: Engine) -> Process:
        if engine not in self.processes:
            self.processes[engine] = Process(engine)
        return self.processes[engine]

    def close(self) -> None:
        """Ends all processes."""
        for process in self.processes.values():
            process.close()
        self.processes.clear()


def installed(comparison: Comparison) -> bool:
    """Whether the peer's library is there."""
    return comparison.peer.program != "Hugging Face" or find_spec("transformers") is not None


def main() -> None:
    """Measures, prints the ratios, and fails when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--repeats", type=int, help="steps of each engine (default 3; quick: 1)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression that a row's name must hold")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    arguments = parser.parse_args()
    bench = Bench(repeats=arguments.repeats or (1 if arguments.quick else 3))
    found = []
    try:
        print(f"{'tokens a second':72} {'ours':>8} {'peer':>8}   ratio")
        for lengths, examples in (QUICK if arguments.quick else EXAMPLES).items():
            for threads in (1,) if arguments.quick else (1, 2):
                chosen = comparisons(lengths, threads, ways=not arguments.quick)
                wanted = [one for one in chosen if re.search(arguments.only, one.name) and installed(one)]
                for made in bench.rows(wanted, lengths, examples):
                    found.append(made)
                    print(line(made, width=72), flush=True)
                bench.close()
    except EngineError as error:
        raise SystemExit(str(error)) from None
    finally:
        bench.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    for told in gpu.lines():
        print(told, flush=True)
    raise SystemExit(bool(missed(found)))


if __name__ == "__main__":
    main()
