"""The tasks of a recipe as training sees them: examples, rows, and a feed that has all of them in its batches.

Shapes: N examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from unilmctl.commands.finetune.ingredients import corruption_of, rows_of
from unilmctl.data.batching import batches, packed_batches
from unilmctl.data.labelled import CLASSIFY, REGRESS, SPAN, TAG, WRITES
from unilmctl.data.labels import LABEL, number_of
from unilmctl.data.store import Store
from unilmctl.objectives import answered, labelled, labelled_length, tagged
from unilmctl.recipe import Lesson, Recipe
from unilmctl.rows import Example, Frame, Ints, Labelled, Row
from unilmctl.training import Feed

ROWS: dict[str, Callable[..., Row]] = {CLASSIFY: labelled, REGRESS: labelled, TAG: tagged, SPAN: answered}
"""The rows of tasks that end in a label."""


def objective_of(lesson: Lesson) -> str | None:
    """The objective of a task that writes; None for what the recipe says."""
    return "similar" if lesson.task == "similar" else None


@dataclass(frozen=True)
class Taught:
    """A lesson with its store: examples to rows, and how long those are. The log knows it by `group`."""

    lesson: Lesson
    store: Store
    frame: Frame
    row: Callable[..., Row]
    row_length: Callable[[Ints, Ints, Frame], Ints]
    group: int

    def example(self, index: int) -> Labelled | Example:
        """One example as its rows want it."""
        source, target, *_ = self.store[index]
        if self.lesson.task in WRITES:
            return Example(source, target)
        value = self.store.field(LABEL, index)
        return Labelled(source, target, np.array([number_of(value)]) if self.lesson.task == REGRESS else value)

    def lengths(self) -> Ints:
        """Tokens of the row of every example [N]."""
        sources, targets = (self.store.lengths(name).astype(np.int64) for name in ("source", "target"))
        return self.row_length(sources, targets, self.frame)

    def chosen(self, seed: int, epoch: int) -> Ints:
        """The examples of an epoch: all of them as often as the weight says, and of its fraction a random part."""
        whole, part = divmod(self.lesson.weight, 1.0)
        count = len(self.store)
        rest = np.random.default_rng((seed, epoch, self.group)).permutation(count)[: round(part * count)]
        return np.concatenate((np.tile(np.arange(count), int(whole)), np.sort(rest)))


@dataclass(frozen=True)
class Several:
    """The examples of several lessons one after another; `starts` is where each begins."""

    lessons: Sequence[Taught]
    starts: Ints

    def __getitem__(self, index: int) -> tuple[Taught, Labelled | Example]:
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        taught = self.lessons[place]
        return taught, taught.example(index - int(self.starts[place]))


def mixed_feed(
    plan: Recipe, lessons: Sequence[Lesson], stores: Mapping[str, Store], frame: Frame
) -> Feed[tuple[Taught, Labelled | Example]]:
    """The examples of all lessons in this recipe's batches."""
    section = plan.finetune
    taught = [_taught(plan, lesson, stores[lesson.name], frame, group) for group, lesson in enumerate(lessons)]
    starts = np.cumsum([0, *(len(one.store) for one in taught[:-1])])
    lengths = np.concatenate([one.lengths() for one in taught])

    def order(epoch: int) -> list[Ints]:
        chosen = np.concatenate(
            [start + one.chosen(plan.seed, epoch) for start, one in zip(starts, taught, strict=True)]
        )
        own = lengths[chosen]
        made = (packed_batches if section.pack else batches)(
            own, own, row_length=lambda own, _: own, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )
        return [chosen[batch] for batch in made]

    return Feed(Several(taught, starts), _row, frame, order, plan.seed, section.pack or 0)


def _row(example: tuple[Taught, Labelled | Example], frame: Frame, random: np.random.Generator) -> Row:
    taught, own = example
    return taught.row(own, frame, random).in_group(taught.group)


def _taught(plan: Recipe, lesson: Lesson, store: Store, frame: Frame, group: int) -> Taught:
    if lesson.task in WRITES:
        row, lengths = rows_of(plan, objective_of(lesson))
        return Taught(lesson, store, frame, row, lengths, group)
    labels = partial(ROWS[lesson.task], head=lesson.name, corruption=corruption_of(plan))
    return Taught(lesson, store, frame, labels, labelled_length, group)
