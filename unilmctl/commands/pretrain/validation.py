"""Validation during pre-training: the loss of each objective on text that is not trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unilmctl.commands.pretrain.mixing import Text
from unilmctl.model import Encoder
from unilmctl.training import Feed, TrainOptions, evaluate_loss


@dataclass(frozen=True)
class Validation:
    """The passages of the validation split, each with one objective, the same at every evaluation."""

    feed: Feed[Text]
    options: TrainOptions

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss` per label; None when `stop` said yes."""
        batches = (self.feed.batch(0, indices) for indices in self.feed.order(0))
        loss = evaluate_loss(encoder, batches, self.options, stop=stop)
        return None if loss is None else {"loss": loss}
