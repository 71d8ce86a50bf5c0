"""A mix of objectives: from a passage to a row of one of them.

Which objective a passage is given is the first thing that its generator draws, so it is a function of (seed, epoch,
passage) as everything else, and passages of all objectives stand in one batch. Their labels carry the number of the
objective's name as `group`.

Shapes: N passages, K objectives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from unilmctl.data.batching import batches, packed_batches
from unilmctl.data.passages import Passages
from unilmctl.fitting.options import custom_row
from unilmctl.objectives import (
    PAIRINGS,
    Corruption,
    CustomRow,
    Objective,
    build,
    row_length,
    sentence_units,
    windowed,
    with_pair_label,
    words,
)
from unilmctl.recipe import Entry, Pretrain, Recipe
from unilmctl.rows import Frame, Ints, Passage, Row
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed

SPECIAL = 3
"""[CLS] and two [SEP]: what a row has at most besides its passage."""

FROM_TWO = ("next-sentence", "sentence-distance")
"""Tasks that take text of a second document."""

Units = Callable[[Ints], Ints] | Literal["given"] | None


class Text(NamedTuple):
    """A passage, and what gives one of another document."""

    passage: Passage
    other: Callable[[np.random.Generator], Passage]


@dataclass(frozen=True)
class Texts:
    """The passages of a store as they are asked for."""

    passages: Passages

    def __getitem__(self, index: int) -> Text:
        return Text(self.passages[index], partial(self.passages.other, index))


@dataclass(frozen=True)
class Part:
    """One objective of a mix: what it makes of a passage, its rows, and their lengths from those of passages [N].

    `group` is the number by which the log knows it.
    """

    objective: Objective
    group: int
    frame: Frame
    pair: str
    sentences: bool
    window: int | None
    lengths: Callable[[Ints], Ints]

    def row(self, text: Text, random: np.random.Generator) -> Row:
        """The row of a passage."""
        passage = sentence_units(text.passage) if self.sentences else text.passage
        other = text.other(random) if self.pair in FROM_TWO else passage
        example, label = PAIRINGS[self.pair](passage, other, self.frame, random)
        row = self.objective(example, self.frame, random)
        if self.window is not None:
            row = windowed(row, self.window)
        return with_pair_label(row, self.pair, label).in_group(self.group)


@dataclass(frozen=True)
class Mix:
    """Objectives, and where the share of each ends in [0, 1], both [K]."""

    parts: tuple[Part, ...]
    ends: Ints

    def __call__(self, text: Text, frame: Frame, random: np.random.Generator) -> Row:
        """The row of a passage under the objective that is drawn for it; `frame` is the mix's own for each."""
        del frame
        return self.parts[self.drawn(random)].row(text, random)

    def drawn(self, random: np.random.Generator) -> int:
        """The number of the objective that a fresh generator gives."""
        return int(np.searchsorted(self.ends[:-1], random.random(), side="right"))

    def lengths(self, lengths: Ints, passages: Ints, seed: int, epoch: int) -> Ints:
        """How long the rows of the passages with these numbers and lengths are in an epoch, [N] and [N] to [N]."""
        found = np.stack([part.lengths(lengths) for part in self.parts])
        if (found == found[0]).all():
            return np.asarray(found[0])
        chosen = [self.drawn(np.random.default_rng((seed, epoch, index))) for index in passages.tolist()]
        return found[chosen, np.arange(len(lengths))]


def names_of(section: Pretrain) -> list[str]:
    """What the objectives of all stages are called; those of one name count as one."""
    return list(dict.fromkeys(entry.label for entry in section.entries))


def mix_of(entries: Sequence[Entry], frame: Frame, plan: Recipe, tokenizer: Tokenizer) -> Mix:
    """The mix that a recipe describes, with rows in `frame`."""
    assert plan.pretrain is not None, "the command asks for it"
    names = names_of(plan.pretrain)
    weights = np.array([entry.weight for entry in entries])
    units: dict[str, Units] = {
        "token": None,
        "word": partial(words, tokenizer.continues()) if plan.data.train.segmenter != "rjieba" else "given",
        "given": "given",
        "sentence": "given",
    }
    parts = tuple(_part(entry, names.index(entry.label), frame, units[entry.units], plan) for entry in entries)
    return Mix(parts, np.cumsum(weights / weights.sum()))


def check_rows(plan: Recipe) -> None:
    """RecipeError for a row of the recipe's own that makes no sense or shows its answers, before any text is read."""
    for entry in plan.pretrain.entries if plan.pretrain else ():
        _custom(entry, _corruption(entry, None), plan)


def _corruption(entry: Entry, units: Units) -> Corruption:
    return Corruption(
        target=entry.rate,
        random=entry.random,
        keep=entry.keep,
        span=entry.span,
        units=units,
        together=entry.together,
    )


def _custom(entry: Entry, corruption: Corruption, plan: Recipe) -> CustomRow | None:
    """The row that an entry names, if it names one."""
    return None if entry.row is None else custom_row(plan, entry.row, corruption)


def _part(entry: Entry, group: int, frame: Frame, units: Units, plan: Recipe) -> Part:
    corruption = _corruption(entry, units)
    if entry.segments is not None:
        frame = replace(frame, source_segment=entry.segments[0], target_segment=entry.segments[1])
    custom = _custom(entry, corruption, plan)
    whole = entry.pairing in ("none", "sentence-reorder")

    def lengths(passages: Ints) -> Ints:
        targets = np.zeros_like(passages) if whole else passages // 2
        if custom is not None:
            return custom.lengths(passages - targets, targets, frame)
        return row_length(entry.objective, passages - targets, targets, frame, corruption)

    objective = build(entry.objective, corruption) if custom is None else custom
    return Part(objective, group, frame, entry.pairing, entry.units == "sentence", entry.window, lengths)


def feed_of(plan: Recipe, passages: Passages, mix: Mix, *, most: int | None = None) -> Feed[Text]:
    """The passages in batches of the mix's rows; with `most` only so many of them, evenly spread."""
    section = plan.pretrain
    assert section is not None, "the command asks for it"
    count = min(most or len(passages), len(passages))
    chosen = np.arange(count) * len(passages) // count
    lengths = passages.lengths()[chosen]

    def order(epoch: int) -> list[Ints]:
        rows = mix.lengths(lengths, chosen, plan.seed, epoch)
        made = (packed_batches if section.pack else batches)(
            rows, rows, row_length=lambda own, _: own, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )
        return [chosen[batch] for batch in made]

    return Feed(Texts(passages), mix, mix.parts[0].frame, order, plan.seed, section.pack or 0)
