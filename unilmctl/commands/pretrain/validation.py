"""Validation during pre-training: the loss of each objective on text that is not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unilmctl.commands.pretrain.mixing import Text
from unilmctl.fitting import parts_of
from unilmctl.model import Encoder
from unilmctl.training import Feed, TrainOptions, evaluate, step_loss


@dataclass(frozen=True)
class Validation:
    """The passages of the validation split, each with one objective, the same at every evaluation."""

    feed: Feed[Text]
    options: TrainOptions
    names: Sequence[str]

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss`, the weighted sum of those of the heads, and `parts` of each objective; None when `stop` said yes."""
        tallies = evaluate(encoder, self.feed, self.options, stop=stop)
        if tallies is None:
            return None
        return {"loss": step_loss(tallies, self.options.head_weights), **parts_of(tallies, self.names)}
