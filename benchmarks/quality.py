"""What smaller number formats cost: BLEU of the same model's outputs by --dtype, and the difference from float32.

    python benchmarks/quality.py MODEL DEV.jsonl [--dtype bfloat16 --dtype int8] [--json FILE]

MODEL is a model or run folder, DEV has lines like {"src": ..., "refs": [...]}. Everything goes through the command
line, as a user would do it. The exit status is 1 when a difference is larger than 0.2 either way. What this machine
has no kernels for is named and left out, and without a model or a file nothing is measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

EXACT = "float32"
OTHERS = ("bfloat16", "int8")
MOST = 0.2
"""BLEU, in points of 100."""


class Row(TypedDict):
    """One format: `ours` is its BLEU, `peer` that of float32; `goal` is the largest difference allowed."""

    name: str
    ours: float
    peer: float
    difference: float
    goal: float


def row(dtype: str, bleu: float, exact: float) -> Row:
    """The comparison of one format with float32."""
    return {"name": f"BLEU, {dtype}", "ours": bleu, "peer": exact, "difference": bleu - exact, "goal": MOST}


def missed(rows: list[Row]) -> list[Row]:
    """Rows that differ by more than their goal allows; rounded as BLEU is printed."""
    return [one for one in rows if round(abs(one["difference"]), 2) > one["goal"]]


def bleu_of(model: Path, dev: Path, dtype: str) -> float | None:
    """BLEU of the model's outputs in one format; None, and the reason printed, where it cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = str(Path(folder) / "outputs.txt")
        written = _unilmctl("generate", str(dev), "--model", str(model), "--dtype", dtype, "--output", outputs)
        if written is None:
            return None
        scored = _unilmctl("evaluate", outputs, str(dev), "--metric", "bleu", "--no-confidence", "--json")
    return None if scored is None else float(json.loads(scored)["scores"][0]["value"])


def _unilmctl(*arguments: str) -> str | None:
    """Standard output of a command, None when it failed."""
    done = subprocess.run([sys.executable, "-m", "unilmctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"left out: unilmctl {' '.join(arguments[:1])}: {done.stderr.strip()}")
        return None
    return done.stdout


def main() -> None:
    """Measures, prints a line for each format, and fails when one costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--dtype", action="append", help=f"repeatable (default: {' '.join(OTHERS)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    arguments = parser.parse_args()
    absent = [str(path) for path in (arguments.model, arguments.dev) if not path.exists()]
    if absent:
        print(f"nothing measured: {', '.join(absent)} does not exist")
        return
    exact = bleu_of(arguments.model, arguments.dev, EXACT)
    if exact is None:
        raise SystemExit(1)
    print(f"BLEU, {EXACT}: {exact:.2f}")
    rows = []
    for dtype in arguments.dtype or OTHERS:
        bleu = bleu_of(arguments.model, arguments.dev, dtype)
        if bleu is not None:
            rows.append(row(dtype, bleu, exact))
            print(f"BLEU, {dtype}: {bleu:.2f} ({bleu - exact:+.2f}, at most {MOST} either way)")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(bool(missed(rows)))


if __name__ == "__main__":
    main()
