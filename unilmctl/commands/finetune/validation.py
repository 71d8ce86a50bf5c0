"""Validation during training: the loss, and the scores of generated text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unilmctl import metrics
from unilmctl.model import Encoder
from unilmctl.training import Feed, TrainOptions, evaluate_loss

CHUNK = 128
"""Sentences that are generated between two questions whether to stop."""

SHOWN = 3
"""Examples that an evaluation keeps in the log."""


@dataclass(frozen=True)
class Validation:
    """What is measured on the validation split.

    `decode(encoder, sources)` gives one text per source (token ids); `references[i]` are the texts of source i.
    """

    feed: Feed
    options: TrainOptions
    decode: Callable[[Encoder, list[list[int]]], list[str]]
    sources: list[list[int]]
    references: list[list[str | None]]
    names: Sequence[str]
    scoring: metrics.Options

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss` per label, every score by name, and `examples`; None when `stop` said yes."""
        batches = (self.feed.batch(0, indices) for indices in self.feed.order(0))
        loss = evaluate_loss(encoder, batches, self.options, stop=stop)
        texts: list[str] = []
        while len(texts) < len(self.sources) and loss is not None:
            if stop():
                return None
            texts += self.decode(encoder, self.sources[len(texts) : len(texts) + CHUNK])
        if loss is None:
            return None
        scores = metrics.evaluate(texts, self.references, names=self.names, options=self.scoring) if texts else {}
        pairs = list(zip(texts, self.references, strict=True))[:SHOWN]
        shown = [{"output": text, "reference": references[0]} for text, references in pairs]
        return {"loss": loss, **scores, "examples": shown}


def better(name: str, value: float, than: float | None) -> bool:
    """Whether `value` of the criterion `name` beats an earlier one; equal is not better."""
    if than is None:
        return value == value  # a number at all
    return value < than if name == "loss" or name in metrics.LOWER_IS_BETTER else value > than
