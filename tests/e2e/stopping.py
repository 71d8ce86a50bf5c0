"""Runs that are stopped and gone on with: what asks to stop, and everything that a run has written."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from unilmctl.runs import StopSignals


def contents(run: Path) -> dict[str, Any]:
    """Everything a run has written but for the clock: tensors, states, log, pointers."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors" and "store" not in name:
            found[name] = {key: tensor.tolist() for key, tensor in load_file(path).items()}
        elif path.name in ("state.json", "log.jsonl"):
            lines = path.read_text().splitlines() if path.name == "log.jsonl" else [path.read_text()]
            found[name] = [without_clock(json.loads(line)) for line in lines]
        elif path.name in ("best", "latest"):
            found[name] = path.read_text()
    return found


def without_clock(entry: dict[str, Any]) -> dict[str, Any]:
    inner = {**entry.get("sums", {})}
    inner.pop("seconds", None)
    return {key: value for key, value in entry.items() if key not in ("seconds", "tokens_per_second", "sums")} | inner


class StopAt:
    """Asks to stop at a certain question, as a signal would."""

    def __init__(self, question: int, number: signal.Signals) -> None:
        self.question, self.number, self.asked = question, number, 0

    @property
    def asked_by(self) -> Callable[[StopSignals], bool]:
        """In the place of `StopSignals.__call__`."""

        def ask(signals: StopSignals) -> bool:
            self.asked += 1
            if self.asked == self.question:
                os.kill(os.getpid(), self.number)
            return signals.received is not None

        return ask
