"""Which inputs are worked on together: those of like length, as many as a token budget allows."""

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
