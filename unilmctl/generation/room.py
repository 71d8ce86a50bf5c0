"""How much is worked on at a time: the token budget, and half of it from when memory turned out to be short."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch

from unilmctl.errors import OutOfMemory, ran_out_of_memory
from unilmctl.generation.budget import budgeted

FoundT = TypeVar("FoundT")
Some = list[tuple[int, FoundT]]


class Doing(NamedTuple):
    """What is done with a line, and what makes it smaller: what a user is told when a single one is too much."""

    name: str
    hint: str


DECODING = Doing("decoding", "lower --beam, --max-length or the length of the sources, or choose --dtype bfloat16")
READING = Doing("reading", "shorten it, or choose --dtype bfloat16")


class Room:
    """A token budget that shrinks when it has to."""

    def __init__(self, budget: int, doing: Doing = DECODING) -> None:
        self.budget, self.doing = budget, doing

    def worked(self, costs: Sequence[int], work: Callable[[list[int]], Sequence[FoundT]]) -> list[FoundT]:
        """What `work(places)` finds for all inputs, those of like cost together; errors as in `decoded`."""

        def batches(places: list[int], budget: int) -> Iterator[Some[FoundT]]:
            for batch in budgeted([costs[place] for place in places], budget):
                yield list(zip(batch, work([places[number] for number in batch]), strict=True))

        found = dict(pair for batch in self.decoded(costs, batches) for pair in batch)
        return [found[place] for place in range(len(costs))]

    def decoded(
        self, costs: Sequence[int], decode: Callable[[list[int], int], Iterator[Some[FoundT]]]
    ) -> Iterator[Some[FoundT]]:
        """What `decode(places, budget)` finds for all sources, by their places among those that it was given.

        When memory is short, the sources that are not done are begun again with half the budget: no output depends on
        what is decoded beside it. OutOfMemory when a single source is too much.
        """
        left = list(range(len(costs)))
        while left:
            asked, done = left, set[int]()
            try:
                for batch in decode(asked, self.budget):
                    found = [(asked[number], one) for number, one in batch]
                    done.update(place for place, _ in found)
                    yield found
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
            else:
                return
            left = [place for place in asked if place not in done]
            self._shrink([costs[place] for place in left])

    def _shrink(self, costs: list[int]) -> None:
        if self.budget < 2 * min(costs) or len(costs) == 1:
            raise OutOfMemory(f"memory does not hold the {self.doing.name} of a single line", self.doing.hint)
        self.budget = min(self.budget, sum(costs)) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
