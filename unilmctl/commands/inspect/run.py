"""unilmctl inspect run: the curves of a run, from its log.jsonl, each as one line of text."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl import console
from unilmctl.errors import DataError
from unilmctl.runs import RunFolder

HIDDEN = frozenset({"step", "event"})


class Curve(NamedTuple):
    """One figure over the steps at which it was logged."""

    steps: list[int]
    values: list[float]


def run(*, folder: Path, as_json: bool = False) -> None:
    """Shows every figure of the run's log as a curve; DataError when nothing has been logged."""
    run_folder = RunFolder(folder)
    entries = run_folder.read_log()
    if not entries:
        raise DataError(f"{folder}: no log.jsonl with anything in it", "name a run folder, such as runs/quickstart")
    found = curves(entries)
    if as_json:
        console.emit(json.dumps({name: curve._asdict() for name, curve in found.items()}, ensure_ascii=False))
        return
    best = run_folder.pointed("best")
    last = max(int(entry["step"]) for entry in entries)
    console.emit(f"{folder}: {last:,} steps logged; best checkpoint: {best.name if best else 'none yet'}")
    console.table(
        ["figure", "first", "last", "lowest", "highest", "curve"],
        [[name, *_corners(curve.values), console.sparkline(curve.values)] for name, curve in found.items()],
    )


def curves(entries: list[dict[str, Any]]) -> dict[str, Curve]:
    """Every number in the log by its event and name, in the order of its first appearance."""
    found: dict[str, Curve] = {}
    for entry in entries:
        for name, value in _numbers(entry):
            curve = found.setdefault(f"{entry['event']}.{name}", Curve([], []))
            curve.steps.append(int(entry["step"]))
            curve.values.append(value)
    return found


def _numbers(entry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in HIDDEN:
            yield prefix + name, float(value)


def _corners(values: list[float]) -> list[str]:
    finite = [value for value in values if math.isfinite(value)] or values
    return [f"{value:.5g}" for value in (values[0], values[-1], min(finite), max(finite))]
