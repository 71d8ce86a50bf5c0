"""How much is decoded at a time: the token budget, and half of it from when memory turned out to be short."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from unilmctl.errors import OutOfMemory, ran_out_of_memory

FoundT = TypeVar("FoundT")
Some = list[tuple[int, FoundT]]


class Room:
    """A token budget that shrinks when it has to."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

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
            hint = "lower --beam, --max-length or the length of the sources, or choose --dtype bfloat16"
            raise OutOfMemory("memory does not hold the decoding of a single line", hint)
        self.budget = min(self.budget, sum(costs)) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
