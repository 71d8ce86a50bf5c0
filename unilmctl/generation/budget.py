"""Which inputs are worked on together: those of like length, as many as a token budget allows."""

from collections import deque
from collections.abc import Iterator, Sequence


def budgeted(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of inputs in batches, cheapest first, each within the budget but one input at least.

    `costs` are tokens; a batch costs as much as its dearest input times their number, because it is padded to it.
    """
    batch: list[int] = []
    for place in sorted(range(len(costs)), key=costs.__getitem__):
        if batch and (len(batch) + 1) * costs[place] > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


class Intake:
    """Which inputs start next, when others end at different times: the dearest first, several at a time.

    All that are worked on at the same time stay within the budget, as in `budgeted`, and are `most` at most; one input
    always starts. Inputs start when a quarter of the room is free: to start a few costs as much as to start many.
    """

    def __init__(self, costs: Sequence[int], budget: int, most: int) -> None:
        self._costs, self._budget, self._most = costs, budget, most
        self._waiting = deque(sorted(range(len(costs)), key=lambda place: -costs[place]))
        self._alive: set[int] = set()

    def take(self) -> list[int]:
        """The places of inputs that start now."""
        if not self._waiting:
            return []
        dearest = max(self._costs[place] for place in [self._waiting[0], *self._alive])
        room = max(1, min(self._most, self._budget // dearest))
        free = room - len(self._alive)
        if self._alive and free < min(max(1, room // 4), len(self._waiting)):
            return []
        started = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        self._alive.update(started)
        return started

    def end(self, place: int) -> None:
        """The input at `place` is done."""
        self._alive.remove(place)
