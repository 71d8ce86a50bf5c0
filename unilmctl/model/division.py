"""Which queries see which keys at most: attention of a training step on a CPU is computed in such parts.

They are found in what the rule says of the batch. A source does not see what is written after it, and packed documents
do not see each other: what no query of a part sees is never multiplied.

Shapes: B rows, T tokens, Q queries.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MULTIPLE, WORTH = 16, 2**14
"""Queries of one document are divided at multiples of the one, so that shapes come again, and where a head is spared
the other's number of weights."""

EACH = 2**12
"""What a part of a packed row costs, in weights of a head that would take as long."""

ALL = slice(None)
"""Every row of a batch."""

Ints = NDArray[np.int64]


class Part(NamedTuple):
    """The queries `asked` of some rows, and the keys among which is all that they see."""

    rows: slice
    asked: slice
    seen: slice


Parts = tuple[Part, ...]
"""Row after row, each with all of its queries; none: nothing is divided."""


def parts_of(seen: Tensor, document: Tensor) -> Parts:
    """The parts of a pass in which queries see keys `seen` [B, T, T]; `document` [B, T] is negative in padding.

    Rows that several documents share are divided each as it is cheapest, other rows all at one place or not at all.
    What padding sees does not count, for nobody asks; it is left its own token, so that no softmax is empty.
    """
    real = document >= 0
    if bool((real & (document != document.amax(1, keepdim=True))).any()):
        own = torch.where(real[:, :, None], seen, torch.eye(seen.shape[2], dtype=torch.bool, device=seen.device))
        first, last = own.int().argmax(2).numpy(), own.int().flip(2).argmax(2).numpy()
        spans = zip(first, seen.shape[2] - last, strict=True)
        return tuple(Part(slice(row, row + 1), *part) for row, both in enumerate(spans) for part in _cheapest(*both))
    reach, tokens = reach_of(seen, real), seen.shape[2]
    if reach == 0:
        return ()
    return Part(ALL, slice(0, reach), slice(0, reach)), Part(ALL, slice(reach, tokens), slice(0, tokens))


def among(parts: Parts, queries: Tensor) -> Parts:
    """The parts of those queries alone that `queries` [B, Q] names, in ascending order; others are not divided.

    Nor are rows that are all divided at one place: behind it is nearly everything that is asked for.
    """
    if not parts or parts[0].rows == ALL or bool((queries.diff() < 0).any()):
        return ()
    found = []
    for rows, asked, seen in parts:
        ends = torch.tensor([asked.start, asked.stop], device=queries.device)
        start, stop = torch.searchsorted(queries[rows.start], ends).tolist()
        if start < stop:
            found.append(Part(rows, slice(start, stop), seen))
    return tuple(found)


def widest(parts: Parts, tokens: int) -> int:
    """How many keys the queries of a part see at most, in rows of so many tokens."""
    return max((part.seen.stop - part.seen.start for part in parts), default=tokens)


def reach_of(seen: Tensor, real: Tensor) -> int:
    """Where to divide tokens for attention: no query before it sees a key behind it, in any row of `seen` [B, T, T].

    Of all such places the one that saves most, as is the end of the source where nothing that is written is seen from
    there; 0 where it is not worth while. What is not `real` [B, T] does not count.
    """
    last = torch.arange(seen.shape[2], device=seen.device)
    furthest = (seen * real[:, :, None] * last).amax((0, 2)).cummax(0).values  # that queries up to each one see
    saved = (last + 1) * (len(last) - last - 1) * ((furthest <= last) & ((last + 1) % MULTIPLE == 0))
    best = int(saved.argmax())
    return best + 1 if saved[best] >= WORTH else 0


def _cheapest(first: Ints, end: Ints) -> list[tuple[slice, slice]]:
    """The division of a row's queries that computes least, which see keys from `first` [T] on up to before `end` [T].

    It is found place by place: the cheapest division up to a place is the cheapest up to an earlier one and a part.
    """
    places = _places(first, end)
    low, high = (np.asarray(least.reduceat(of, places[:-1])) for least, of in ((np.minimum, first), (np.maximum, end)))
    cost, parts = np.zeros(len(places)), [(0, 0, 0)]
    for stop in range(1, len(places)):
        lowest, highest = _back(np.minimum, low[:stop]), _back(np.maximum, high[:stop])
        costs = cost[:stop] + EACH + (places[stop] - places[:stop]) * (highest - lowest)
        start = int(costs.argmin())
        cost[stop] = costs[start]
        parts.append((start, int(lowest[start]), int(highest[start])))
    found, stop = [], len(places) - 1
    while stop:
        start, low_key, high_key = parts[stop]
        found.append((slice(int(places[start]), int(places[stop])), slice(low_key, high_key)))
        stop = start
    return found[::-1]


def _places(first: Ints, end: Ints) -> Ints:
    """Where a row may be divided, from 0 to T: where nobody sees across, and at multiples."""
    inner = np.arange(1, len(first))
    apart = (np.maximum.accumulate(end)[:-1] <= inner) & (np.minimum.accumulate(first[::-1])[::-1][1:] >= inner)
    return np.concatenate(([0], inner[apart | (inner % MULTIPLE == 0)], [len(first)]))


def _back(least: Any, values: Ints) -> Ints:
    """The least (or most) from each place on."""
    return np.asarray(least.accumulate(values[::-1])[::-1])
