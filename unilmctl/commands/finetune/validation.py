"""Validation during training: the loss, and the scores of generated text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unilmctl import metrics
from unilmctl.fitting import parts_of
from unilmctl.model import Encoder
from unilmctl.training import Feed, TrainOptions, evaluate, step_loss

SHOWN = 3
"""Examples that an evaluation keeps in the log."""


@dataclass(frozen=True)
class Validation:
    """What is measured on the validation split.

    `decode(encoder, sources, stop)` gives one text per source (token ids), None when `stop` said yes; `references[i]`
    are the texts of source i, `shown` the first sources as text.
    """

    feed: Feed[Any]
    options: TrainOptions
    decode: Callable[[Encoder, list[list[int]], Callable[[], bool]], list[str] | None]
    sources: list[list[int]]
    references: list[list[str | None]]
    names: Sequence[str]
    scoring: metrics.Options
    shown: list[str]

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss` per label, every score by name, and `examples`; None when `stop` said yes."""
        tallies = evaluate(encoder, self.feed, self.options, stop=stop)
        if tallies is None:
            return None
        texts = self.decode(encoder, self.sources, stop)
        if texts is None:
            return None
        scores = metrics.evaluate(texts, self.references, names=self.names, options=self.scoring)
        first = zip(self.shown, texts, self.references, strict=False)
        examples = [{"source": source, "output": text, "reference": known[0]} for source, text, known in first]
        loss = step_loss(tallies, self.options.head_weights)
        return {"loss": loss, **scores, **parts_of(tallies), "examples": examples}
