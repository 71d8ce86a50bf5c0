"""How sure a figure is: bootstrap intervals, and a paired test of two systems on the same sentences.

Both work on what was counted per sentence (`Measured.table`, [N, S]): a resample is a vector of N weights, and many
resamples at once are one matrix product; only the last step, from [S] sums to a figure, runs once per resample.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from unilmctl.metrics.values import Comparison, Interval, Measured, Table

SEED = 12345  # sacrebleu's: with it and RESAMPLES the intervals of BLEU, chrF and TER are sacrebleu's own
RESAMPLES = 1000
TRIALS = 10000
_CELLS = 1 << 18  # weights held at once: two megabytes stay in the cache


def bootstrap(measured: Measured, *, resamples: int = RESAMPLES, seed: int = SEED) -> Table:
    """The figure of `resamples` corpora of N sentences drawn with replacement (Koehn 2004), [resamples]."""
    return _figures(measured.combine, _draws(len(measured.table), resamples, seed), measured.table)


def interval(figures: Table, *, seed: int) -> Interval:
    """The middle 95 %: a fortieth is cut off at either end, as sacrebleu does."""
    ordered = np.sort(figures)
    cut = len(ordered) // 40
    low, high = float(ordered[cut]), float(ordered[len(ordered) - cut - 1])
    return Interval(low, high, float(ordered.mean()), len(ordered), seed)


def compare(
    name: str, system: Measured, other: Measured, *, seed: int = SEED, trials: int = TRIALS, resamples: int = RESAMPLES
) -> Comparison:
    """Test whether two systems differ: approximate randomisation (Riezler & Maxwell 2005), two-sided.

    Each trial swaps the outputs of the two systems at a random half of the sentences. p is the share of trials,
    counting the real one, whose difference is at least the one that was seen; two equal systems give p = 1.
    """
    value, against = system.value, other.value
    difference = value - against
    if not (system.resampled and other.resampled):
        return Comparison(name, value, against, difference, None, None)
    ours, theirs = system.table.sum(axis=0), other.table.sum(axis=0)

    def swap(moved: Table) -> float:
        return system.combine(ours + moved) - other.combine(theirs - moved)

    swapped = _figures(swap, _coins(len(system.table), trials, seed), other.table - system.table)
    # Sums in another order differ in the last digits; that must not turn an equal difference into a smaller one.
    extreme = int((np.abs(swapped) >= abs(difference) - 1e-9).sum())
    bounds = bootstrap(system, resamples=resamples, seed=seed) - bootstrap(other, resamples=resamples, seed=seed)
    return Comparison(name, value, against, difference, (extreme + 1) / (trials + 1), interval(bounds, seed=seed))


def _figures(combine: Callable[[Table], float], weights: Iterator[NDArray[np.float64]], table: Table) -> Table:
    return np.array([combine(total) for block in weights for total in block @ table])


def _draws(sentences: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each sentence was drawn, in blocks [R, N]."""
    random = np.random.default_rng(seed)
    for size in _blocks(sentences, resamples):
        drawn = random.choice(sentences, size=(size, sentences), replace=True)
        yield np.array([np.bincount(row, minlength=sentences) for row in drawn], dtype=np.float64)


def _coins(sentences: int, trials: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Whether each sentence is swapped, in blocks [T, N]."""
    random = np.random.default_rng(seed)
    for size in _blocks(sentences, trials):
        flips = random.integers(0, 256, size=(size, -(-sentences // 8)), dtype=np.uint8)
        yield np.unpackbits(flips, axis=1, count=sentences).astype(np.float64)


def _blocks(sentences: int, total: int) -> Iterator[int]:
    size = max(1, _CELLS // sentences)
    for start in range(0, total, size):
        yield min(size, total - start)
