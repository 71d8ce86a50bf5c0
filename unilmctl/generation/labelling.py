"""Labels for texts: what a head says of them, instead of text that is written.

Shapes: B rows of a batch, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from unilmctl.errors import ModelError, UsageError
from unilmctl.generation.budget import budgeted
from unilmctl.generation.model import Opened
from unilmctl.objectives import read_row
from unilmctl.rows import Frame, Row, pad
from unilmctl.visibility import Slots
from unilmctl.weights import LabelTask, ModelCard

Ids = Sequence[int]


class Said(NamedTuple):
    """The likeliest label and the probability of every label; or a number, and None."""

    label: str
    probabilities: dict[str, float] | None


def task_of(card: ModelCard, name: str | None) -> tuple[str, LabelTask]:
    """The task of that name that a model was trained for, or its only one for None; UsageError for another one."""
    known = ", ".join(card.tasks)
    if name is None:
        if len(card.tasks) != 1:
            raise UsageError("the model has several tasks", f"--task NAME, one of {known}")
        name = next(iter(card.tasks))
    if name not in card.tasks:
        raise UsageError(f"the model has no task '{name}'", f"it has {known or 'none: it writes text'}")
    return name, card.tasks[name]


class Labeller:
    """A model that says something of texts by the head `name`.

    `longest`: most tokens of a text alone, special ones not counted, that are read.
    """

    def __init__(self, opened: Opened, name: str, *, batch_tokens: int) -> None:
        """ModelError when the model has no such head."""
        self.encoder = opened.encoder.eval()
        heads = {head.name: head for head in self.encoder.config.heads_extra}
        if name not in heads:
            raise ModelError(f"the model folder says that there is a head '{name}', and there is none")
        self.head, self.batch_tokens, roles, card = heads[name], batch_tokens, opened.tokenizer.roles, opened.card
        longest = min(card.max_source or self.encoder.config.positions, self.encoder.config.positions)
        self.longest = longest - 2
        self.frame = Frame(
            pad=roles.pad,
            start=roles.start,
            separator=roles.separator,
            mask=roles.mask,
            vocabulary=opened.tokenizer.size,
            source_segment=card.source_segment,
            target_segment=card.target_segment,
            max_source=longest,
            truncate=card.truncate,
        )

    def say(self, texts: Sequence[tuple[Ids, Ids]]) -> list[Said]:
        """What is to be said of each text and its second (empty: there is none), as ids without special tokens."""
        pairs = [(np.asarray(one, dtype=np.int64), np.asarray(two, dtype=np.int64)) for one, two in texts]
        rows = [read_row(one, two, self.frame) for one, two in pairs]
        found: dict[int, Said] = {}
        for places in budgeted([len(row) for row in rows], self.batch_tokens):
            scores = self._scores([rows[place] for place in places])
            found.update((place, self._said(line)) for place, line in zip(places, scores, strict=True))
        return [found[place] for place in range(len(rows))]

    @torch.inference_mode()
    def _scores(self, rows: list[Row]) -> list[list[float]]:
        """Probabilities [B, C], or numbers [B, 1]."""
        batch, device = pad(rows, pad_id=self.frame.pad), self.encoder.head.bias.device
        slots = Slots(*(part.to(device) for part in batch.slots))
        hidden, _ = self.encoder(*(part.to(device) for part in (batch.ids, batch.positions, batch.segments)), slots)
        scores = self.encoder.scores(self.head.name, hidden[:, 0]).float()
        found: list[list[float]] = (scores[:, None] if self.head.kind == "regression" else scores.softmax(-1)).tolist()
        return found

    def _said(self, scores: list[float]) -> Said:
        if self.head.kind == "regression":
            return Said(repr(scores[0]), None)
        names = self.head.labels or tuple(map(str, range(self.head.classes)))
        return Said(names[max(range(len(scores)), key=scores.__getitem__)], dict(zip(names, scores, strict=True)))
