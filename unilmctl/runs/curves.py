"""The figures of a log as curves over the steps at which they were logged."""

from collections.abc import Iterator
from typing import Any, NamedTuple

HIDDEN = frozenset({"step", "event"})


class Curve(NamedTuple):
    """One figure over the steps at which it was logged."""

    steps: list[int]
    values: list[float]


def curves(entries: list[dict[str, Any]]) -> dict[str, Curve]:
    """Every number in the log as `EVENT.NAME`, in the order of its first appearance."""
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
