"""A mix of objectives: from a passage to a row of one of them.

Which objective a passage is given in an epoch is drawn for all passages at once, and is a function of (seed, epoch,
passage) as everything else. An example is then a passage under an objective: their two numbers are one. Examples of all
objectives stand in one batch; their labels carry the number of the objective's name as `group`.

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
    """A passage, what gives one of another document, and the number of the objective that the passage is under."""

    passage: Passage
    other: Callable[[np.random.Generator], Passage]
    objective: int


@dataclass(frozen=True)
class Texts:
    """The passages of a store as they are asked for: passage p under objective k of K is number p * K + k."""

    passages: Passages
    objectives: int

    def __getitem__(self, index: int) -> Text:
        passage, objective = divmod(index, self.objectives)
        return Text(self.passages[passage], partial(self.passages.other, passage), objective)


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
        """The row of a passage under its objective; `frame` is the mix's own for each."""
        del frame
        return self.parts[text.objective].row(text, random)

    def objectives(self, count: int, seed: int, epoch: int) -> Ints:
        """The numbers of the objectives that the first `count` passages are under in an epoch, [N]."""
        random = np.random.default_rng((seed, epoch, 0, 1))  # rows have (seed, epoch, example)
        return np.searchsorted(self.ends[:-1], random.random(count), side="right")

    def lengths(self, lengths: Ints, objectives: Ints) -> Ints:
        """How long the rows of passages of these lengths are under their objectives, [N] and [N] to [N]."""
        found = np.empty_like(lengths)
        for number, part in enumerate(self.parts):
            mine = objectives == number
            found[mine] = part.lengths(lengths[mine])
        return found


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
        objectives = mix.objectives(len(passages), plan.seed, epoch)[chosen]
        rows = mix.lengths(lengths, objectives)
        made = (packed_batches if section.pack else batches)(
            rows, rows, row_length=lambda own, _: own, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )
        examples = chosen * len(mix.parts) + objectives
        return [examples[batch] for batch in made]

    return Feed(Texts(passages, len(mix.parts)), mix, mix.parts[0].frame, order, plan.seed, section.pack or 0)
