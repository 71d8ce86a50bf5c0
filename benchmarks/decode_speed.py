"""Output tokens a second of our decoder against every engine that does the same work, and against the machine's limit.

All models have random weights of BERT-base size and write 32 tokens with a beam of 5, from sources of 128 and 448
tokens, in batches of 1, 8 and 32, on one thread (CPU seconds) unless said. Each engine has a process of its own, as
two OpenMP runtimes spoil each other, and they take turns; medians are compared. The sentences of the mixture differ in
source length alone: no engine but ours could give each its own output length.

The slow twin (s2s-ft's way) runs a few steps; the rest of its time is extrapolated from them, to its advantage, since
later steps are longer.

    python benchmarks/decode_speed.py            everything: hours
    python benchmarks/decode_speed.py --quick    source 128, batches 1 and 8: under five minutes
    python benchmarks/decode_speed.py --only '12\\+12 int8.*batch 8'    rows whose names match

The exit status is 1 when a goal is missed. Peers that are not installed are named (`pip install -e '.[bench]'`).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from beside import EngineError, Row, line, missed
from decode_bench import goals
from decode_bench.measuring import FEWER, SENTENCES, Bench


def rows(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """All rows, as they become known."""
    cells = goals.QUICK_CELLS if quick else [(source, batch) for source in goals.SOURCES for batch in goals.BATCHES]
    for cell in cells:
        small = quick and cell[1] > 1
        yield from bench.compare(goals.QUICK_COMPARISONS if small else goals.COMPARISONS, cell)
        yield from bench.roofline(cell)
        bench.profile(cell, (goals.CAUSAL,) if quick else (goals.CAUSAL, goals.PSEUDO))
    if quick:
        yield from bench.memory(goals.QUICK_MEMORY, 4)
        yield from bench.mixture(FEWER, goals.QUICK_OURS, goals.QUICK_PEERS)
    else:
        yield from bench.memory(goals.MEMORY_GOALS, 32)
        yield from bench.mixture(SENTENCES, goals.MIXTURE_OURS, goals.MIXTURE_PEERS)


def main() -> None:
    """Measures, prints the ratios, and fails when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--repeats", type=int, help="runs of each engine (default 3; quick: 1)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression that a row's name must hold")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep the random models here for the next time")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, repeats=arguments.repeats or (1 if arguments.quick else 3), wanted=arguments.only)
        try:
            print(f"{'tokens a second, or GB':84} {'ours':>8} {'peer':>8}   ratio")
            for row in rows(bench, quick=arguments.quick):
                found.append(row)
                print(line(row), flush=True)
        except EngineError as error:
            raise SystemExit(str(error)) from None
        finally:
            bench.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    raise SystemExit(bool(missed(found)))


if __name__ == "__main__":
    main()
