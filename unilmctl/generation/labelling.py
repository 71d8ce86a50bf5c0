"""What heads say of texts, instead of text that is written: labels, tags, answers, vectors.

| task | said of a text | with `--json` |
|---|---|---|
| `classify` | the likeliest label | `label`, `probabilities` of all |
| `regress` | a number | `label` |
| `tag` | a tag for every word | `tags` |
| `span` | the part of the second text that answers the first | `answer`, its `start`, its `probability` |
| `similar` | a vector of length 1 | `embedding` |

Shapes: B rows of a batch, T tokens of a row, C classes, D width.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unilmctl.data.labelled import CLASSIFY, REGRESS, SPAN, TAG, plain_of
from unilmctl.data.parsing import Text
from unilmctl.data.parts import Part, Parting
from unilmctl.errors import ModelError, UsageError
from unilmctl.generation.model import Opened
from unilmctl.generation.room import READING, Room
from unilmctl.objectives import CONTRASTIVE, answer_slots, read_row
from unilmctl.rows import Frame, Row, pad
from unilmctl.visibility import Slots
from unilmctl.weights import LabelTask, ModelCard

LONGEST_ANSWER = 64
"""Tokens of an answer at most."""

Pair = tuple[Text, Text | None]
"""A text, and perhaps a second one."""


class Said(NamedTuple):
    """What is said of a text, on one line; the same and more by name; and whether the end of the text was not read."""

    text: str
    fields: dict[str, Any]
    cut: bool = False


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
    """A model that says something of texts by the head of its task `name`.

    `longest`: most tokens of a text alone, special ones not counted, that are read at once.
    """

    def __init__(self, opened: Opened, name: str, *, batch_tokens: int) -> None:
        """ModelError when the model has no such head."""
        self.encoder, self.tokenizer = opened.encoder.eval(), opened.tokenizer
        heads = {head.name: head for head in self.encoder.config.heads_extra}
        self.task, self.room = task_of(opened.card, name)[1], Room(batch_tokens, READING)
        head = CONTRASTIVE if self.task["task"] == "similar" else name
        if head not in heads:
            raise ModelError(f"the model folder says that there is a head '{head}', and there is none")
        self.name, self.head = name, heads[head]
        roles, card = self.tokenizer.roles, opened.card
        longest = min(card.max_source or self.encoder.config.positions, self.encoder.config.positions)
        self.longest = longest - 2
        self.parting = Parting(self.task["task"], longest, self.task["stride"] or longest)
        self.frame = Frame(
            pad=roles.pad,
            start=roles.start,
            separator=roles.separator,
            mask=roles.mask,
            vocabulary=self.tokenizer.size,
            source_segment=card.source_segment,
            target_segment=card.target_segment,
            max_source=longest,
            truncate=card.truncate,
        )

    def say(self, texts: Sequence[Pair]) -> list[Said]:
        """What is to be said of each text."""
        if not texts:
            return []
        found = self.parting.parts(self.tokenizer, texts)
        scores = iter(self._scored(list(chain.from_iterable(found))))
        say = SAYS[self.task["task"]]
        return [say(self, text, parts, [next(scores) for _ in parts]) for text, parts in zip(texts, found, strict=True)]

    def _scored(self, parts: list[Part]) -> list[Tensor]:
        """What the head gives for each part: [C] or [D], of a part with several slots [slots, C]."""
        rows = [read_row(np.array(one.source, np.int64), np.array(one.second, np.int64), self.frame) for one in parts]

        def given(places: list[int]) -> list[Tensor]:
            return self._given([rows[place] for place in places], [parts[place] for place in places])

        return self.room.worked([len(row) for row in rows], given)

    @torch.inference_mode()
    def _given(self, rows: list[Row], parts: list[Part]) -> list[Tensor]:
        """The scores of the slots that the head reads, of each row."""
        batch, device = pad(rows, pad_id=self.frame.pad), self.encoder.head.bias.device
        slots = Slots(*(part.to(device) for part in batch.slots))
        hidden, _ = self.encoder(*(part.to(device) for part in (batch.ids, batch.positions, batch.segments)), slots)
        read = [self._read(part) for part in parts]
        states = torch.cat([line[place.to(device)] for line, place in zip(hidden, read, strict=True)])
        scores = torch.split(self.encoder.scores(self.head.name, states).float().cpu(), [len(place) for place in read])
        return list(scores) if self.head.kind in ("token", "span") else [score[0] for score in scores]

    def _read(self, part: Part) -> Tensor:
        """The slots of a part's row that the head reads."""
        if self.head.kind == "span":
            return torch.from_numpy(answer_slots(len(part.source), len(part.second)))
        return torch.tensor(part.marks, dtype=torch.long) + 1 if self.head.kind == "token" else torch.zeros(1).long()

    def _cut(self, part: Part) -> bool:
        return len(part.source) + len(part.second) > self.longest - bool(part.second)


def _label(by: Labeller, text: Pair, parts: Sequence[Part], scores: Sequence[Tensor]) -> Said:
    del text
    names = by.head.labels or tuple(map(str, range(by.head.classes)))
    shares = scores[0].softmax(-1).tolist()
    best = names[max(range(len(shares)), key=shares.__getitem__)]
    return Said(best, {"label": best, "probabilities": dict(zip(names, shares, strict=True))}, by._cut(parts[0]))


def _number(by: Labeller, text: Pair, parts: Sequence[Part], scores: Sequence[Tensor]) -> Said:
    del text
    return Said(repr(scores[0].item()), {"label": scores[0].item()}, by._cut(parts[0]))


def _tags(by: Labeller, text: Pair, parts: Sequence[Part], scores: Sequence[Tensor]) -> Said:
    del text, parts
    tags = [by.head.labels[place] for part in scores for place in part.argmax(-1).tolist()]
    return Said(" ".join(tags), {"tags": tags})


def _answer(by: Labeller, text: Pair, parts: Sequence[Part], scores: Sequence[Tensor]) -> Said:
    """The best span of all windows, measured against [CLS], which says that a window has no answer.

    No answer is said only by models that have met such questions.
    """
    best = (-float("inf"), "", 0)
    context = plain_of(text[1] or "")
    for part, score in zip(parts, scores, strict=True):
        if not part.second:
            continue
        value, first, last = best_span(score[1:])
        begin, end = part.marks[first], part.marks[last + 1]
        best = max(best, (value - float(score[0].sum()), context[begin:end].rstrip(), begin))
    value, answer, begin = best
    share = float(torch.tensor(value).sigmoid())
    if value < 0 and by.task["empty"]:
        answer, begin, share = "", 0, 1 - share
    return Said(" ".join(answer.split()), {"answer": answer, "start": begin, "probability": share})


def best_span(scores: Tensor) -> tuple[float, int, int]:
    """The best sum of beginning and end [T, 2], and both places: the end is not before the beginning, nor far."""
    sums = scores[:, 0, None] + scores[:, 1]  # [T, T]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    best = int(sums.masked_fill(~allowed, -torch.inf).argmax())
    first, last = divmod(best, len(scores))
    return float(sums[first, last]), first, last


def _vector(by: Labeller, text: Pair, parts: Sequence[Part], scores: Sequence[Tensor]) -> Said:
    del text
    values = [round(value, 6) for value in scores[0].tolist()]
    return Said(" ".join(map(str, values)), {"embedding": values}, by._cut(parts[0]))


SAYS: dict[str, Callable[[Labeller, Pair, Sequence[Part], Sequence[Tensor]], Said]] = {
    CLASSIFY: _label,
    REGRESS: _number,
    TAG: _tags,
    SPAN: _answer,
    "similar": _vector,
}
"""From the scores of a text's parts to what is said of it."""
