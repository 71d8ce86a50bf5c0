"""Which examples share a batch, and in which order: a pure function of (seed, epoch).

Examples of like length are put together so that little is padded; ties are broken at random, and the batches come in
random order. The state of a data loader is therefore two integers and a position, and skipping costs nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Small = NDArray[np.int32]

Lengths = Small | Ints
"""Whole numbers [N]: ten million of them are a matter of 40 or 80 MB."""

LengthsT = TypeVar("LengthsT", Small, Ints)

SLICE = 1 << 20
"""Examples whose rows are measured at a time: that takes a dozen arrays."""

MULTIPLE = 4
"""Rows of a batch are padded to a multiple of this: kernels are compiled and remembered for every shape they meet, so
a few shapes train faster, and in less memory, than hundreds."""


def batches(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    row_length: Callable[[Ints, Ints], Ints],
    batch_tokens: int,
    seed: int,
    epoch: int,
) -> list[Ints]:
    """The batches of one epoch, each an array of example indices; every example is in exactly one.

    source_lengths, target_lengths [N]: tokens of the examples. row_length: those two -> tokens of the row that an
    objective makes of them [N]. batch_tokens: a batch's rows times its padded length stay within it; a row that alone
    is longer gets a batch of its own.
    """
    lengths = _row_lengths(source_lengths, target_lengths, lambda *both: padded_length(row_length(*both)))
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(np.arange(len(lengths), dtype=np.int32))
    order = order[np.argsort(_narrow(lengths[order]), kind="stable")].astype(np.int64)
    cut = _cut(lengths[order], batch_tokens)
    return [order[cut[i] : cut[i + 1]] for i in random.permutation(len(cut) - 1)]


def packed_batches(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    row_length: Callable[[Ints, Ints], Ints],
    batch_tokens: int,
    seed: int,
    epoch: int,
) -> list[Ints]:
    """As `batches`, for rows that are packed: examples in random order, their tokens within `batch_tokens`."""
    lengths = _row_lengths(source_lengths, target_lengths, row_length)
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    ends = np.cumsum(lengths[order])
    made, start = [], 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        made.append(order[start:stop])
        start = stop
    return made


def _row_lengths(sources: Lengths, targets: Lengths, row_length: Callable[[Ints, Ints], Ints]) -> Small:
    """Tokens of the row of every example [N]."""
    found = np.empty(len(sources), dtype=np.int32)
    for start in range(0, len(sources), SLICE):
        part = slice(start, start + SLICE)
        found[part] = row_length(sources[part].astype(np.int64), targets[part].astype(np.int64))
    return found


def _narrow(lengths: Lengths) -> NDArray[Any]:
    """The same numbers in 16 bits if they fit, which are sorted in one pass."""
    return lengths.astype(np.uint16) if int(lengths.max(initial=0)) < 1 << 16 else lengths


def padded_length(length: LengthsT) -> LengthsT:
    """The next multiple of `MULTIPLE`."""
    return -(-length // MULTIPLE) * MULTIPLE


def padding(lengths: Lengths, made: list[Ints]) -> float:
    """The share of slots in the batches `made` that are padding, when rows have `lengths` [N]."""
    used = sum(int(lengths[batch].sum()) for batch in made)
    slots = sum(len(batch) * int(padded_length(lengths[batch].max())) for batch in made)
    return 1 - used / slots if slots else 0.0


def _cut(lengths: Lengths, budget: int) -> list[int]:
    """Where batches begin in ascending `lengths`, and the end."""
    cut = [0]
    while cut[-1] < len(lengths):
        start = cut[-1]
        most = max(1, budget // max(1, int(lengths[start])))  # no batch that begins here can hold more rows
        window = lengths[start : start + most]
        rows = int(np.searchsorted(window * np.arange(1, len(window) + 1), budget, side="right"))
        cut.append(start + max(1, rows))
    return cut
