"""A model folder, opened for writing text or scoring it."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from unilmctl.decoding import pack, settle
from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ModelCard, load_model


class Opened(NamedTuple):
    """What a model folder holds."""

    encoder: Encoder
    card: ModelCard
    tokenizer: Tokenizer

    def packed(self, dtype: str) -> "Opened":
        """With the weights in this number format and laid out for decoding, in place: they can no longer be trained.

        UsageError when this machine cannot compute in it.
        """
        return self._replace(encoder=pack(self.encoder, settle(dtype, self.encoder.config.hidden)))


def open_model(folder: Path, *, objective: str | None = None) -> Opened:
    """Weights, card and tokenizer of a model folder; `objective` overrides the card's.

    ModelError for anything missing or broken, and for a vocabulary that is larger than the model's.
    """
    encoder, card = load_model(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.size > encoder.config.vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.size} entries, the model only {encoder.config.vocabulary}",
            "the two do not belong together",
        )
    return Opened(encoder, card if objective is None else replace(card, objective=objective), tokenizer)
