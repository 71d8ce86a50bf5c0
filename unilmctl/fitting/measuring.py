"""What is measured during training, and which of two values is better."""

import math
from collections.abc import Callable
from typing import Any, Protocol

from unilmctl import metrics
from unilmctl.model import Encoder


class Measures(Protocol):
    """A validation split and what to do with it."""

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Figures by name, `loss` among them; None when `stop` said yes."""
        ...


def better(name: str, value: float, than: float | None) -> bool:
    """Whether `value` of the criterion `name` beats an earlier one; equal is not better."""
    if than is None:
        return not math.isnan(value)
    return value < than if name == "loss" or name in metrics.LOWER_IS_BETTER else value > than
