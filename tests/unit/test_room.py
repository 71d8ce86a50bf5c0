"""Decoding that memory does not hold goes on with half the budget."""

from collections.abc import Iterator

import pytest

from unilmctl.errors import OutOfMemory
from unilmctl.generation.budget import budgeted
from unilmctl.generation.room import Room


def decoding(costs: list[int], memory: int, tried: list[int]) -> Room:
    room = Room(100)

    def decode(places: list[int], budget: int) -> Iterator[list[tuple[int, str]]]:
        mine = [costs[place] for place in places]
        for batch in budgeted(mine, budget):
            size = len(batch) * max(mine[number] for number in batch)
            tried.append(size)
            if size > memory:
                raise MemoryError
            yield [(number, f"source {places[number]}") for number in batch]

    found = dict(pair for batch in room.decoded(costs, decode) for pair in batch)
    assert found == {place: f"source {place}" for place in range(len(costs))}
    return room


@pytest.mark.parametrize("memory", [100, 60, 50, 30, 21, 20])
def test_all_is_decoded_once_memory_suffices(memory: int) -> None:
    tried: list[int] = []
    room = decoding([3, 5, 8, 13, 20, 20, 20, 8, 5, 3], memory, tried)
    assert max(tried[-3:]) <= memory
    assert room.budget <= max(memory, 40), "the budget stays at what fits"


def test_a_single_source_that_does_not_fit_ends_it() -> None:
    with pytest.raises(OutOfMemory, match="memory does not hold the decoding of a single line"):
        decoding([3, 5, 60], 50, [])


def test_another_error_passes_through() -> None:
    def decode(places: list[int], budget: int) -> Iterator[list[tuple[int, str]]]:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Room(10).decoded([1, 2], decode))
