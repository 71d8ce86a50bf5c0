"""From examples to batches, in an order that is a pure function of (seed, epoch).

The corruption of an example is drawn from a generator of its own, seeded with (seed, epoch, example). So where training
stands is two integers, and going on from them costs nothing.

Shapes: B rows, T tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from unilmctl.data.batching import padded_length
from unilmctl.errors import DataError
from unilmctl.rows import Batch, Frame, Ints, Row, pack_into, pad

ExampleT = TypeVar("ExampleT")
FoundT_co = TypeVar("FoundT_co", covariant=True)


class Position(NamedTuple):
    """Where training stands: steps done, epoch and batch to come, and steps skipped so far."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0


BEGINNING = Position()


class Place(NamedTuple):
    """A batch that is not built yet: its epoch, its examples, and the epoch and batch that come after it."""

    epoch: int
    indices: Ints
    after: tuple[int, int]


class Examples(Protocol[FoundT_co]):
    """Anything that gives an example for an index: a list, or a token store."""

    def __getitem__(self, index: int, /) -> FoundT_co:
        """The example of that index."""
        ...


@dataclass(frozen=True)
class Feed(Generic[ExampleT]):
    """Examples, how each becomes a row, and which examples make a batch.

    What an example is, a pair or a passage of text, is between whoever keeps them and the objective.
    `order(epoch)` lists the batches of an epoch as arrays of example indices. Unless `pack` is 0, examples share rows
    of at most so many tokens.
    """

    examples: Examples[ExampleT]
    objective: Callable[[ExampleT, Frame, np.random.Generator], Row]
    frame: Frame
    order: Callable[[int], list[Ints]]
    seed: int
    pack: int = 0

    def batch(self, epoch: int, indices: Ints) -> Batch:
        """The rows of these examples, corrupted as epoch and index say, padded to one length that kernels have met."""
        rows = []
        for index in indices.tolist():
            random = np.random.default_rng((self.seed, epoch, index))
            rows.append(self.objective(self.examples[index], self.frame, random))
        if self.pack:
            rows = pack_into(rows, self.pack)
        longest = np.array(max(len(row) for row in rows))
        return pad(rows, pad_id=self.frame.pad, length=int(padded_length(longest)))

    def places(self, start: Position) -> Iterator[Place]:
        """Endless places of batches from `start` on. DataError when there is nothing to train on."""
        epoch, first = start.epoch, start.batch
        while True:
            order = self.order(epoch)
            if not order:
                raise DataError("there is not a single training example", "is the training file empty?")
            for number in range(first, len(order)):
                last = number + 1 == len(order)
                yield Place(epoch, order[number], (epoch + 1, 0) if last else (epoch, number + 1))
            epoch, first = epoch + 1, 0

    def batches(self, start: Position) -> Iterator[tuple[Batch, int, int]]:
        """Endless batches from `start` on, each with the epoch and the batch that come after it.

        DataError when there is nothing to train on.
        """
        for place in self.places(start):
            yield self.batch(place.epoch, place.indices), *place.after
