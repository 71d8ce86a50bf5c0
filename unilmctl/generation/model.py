"""Model folders, opened for writing text or scoring it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from unilmctl.decoding import pack, settle
from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ModelCard, load_model

CPU = torch.device("cpu")


class Opened(NamedTuple):
    """What a model folder holds."""

    encoder: Encoder
    card: ModelCard
    tokenizer: Tokenizer

    def packed(self, dtype: str, device: torch.device = CPU) -> "Opened":
        """On this device, with the weights in this number format and laid out for decoding: they are no longer trained.

        UsageError when the device cannot compute in it.
        """
        settled = settle(dtype, self.encoder.config.hidden, device.type)
        return self._replace(encoder=pack(self.encoder.to(device), settled))


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


def open_models(folders: Sequence[Path], *, objective: str | None = None) -> list[Opened]:
    """Models that write together; ModelError as in `open_model`, and for one with another vocabulary than the first."""
    models = [open_model(folder, objective=objective) for folder in folders]
    first = models[0].tokenizer
    for folder, model in zip(folders, models, strict=True):
        if model.tokenizer.fingerprint() != first.fingerprint():
            what = _difference(first, model.tokenizer)
            hint = "models that write together need one vocabulary"
            raise ModelError(f"{folder}: its vocabulary is not that of {folders[0]}: {what}", hint)
    return models


def _difference(first: Tokenizer, other: Tokenizer) -> str:
    """What tells two tokenizers from each other."""
    if first.size != other.size:
        return f"{other.size} tokens and {first.size}"
    ids = range(first.size)
    found = next((pair for pair in zip(other.tokens(ids), first.tokens(ids), strict=True) if pair[0] != pair[1]), None)
    return "text is cut otherwise" if found is None else f"'{found[0]}' has the number of '{found[1]}'"
