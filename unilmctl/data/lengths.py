"""How long examples are, counted in stretches of equal width.

Shapes: N examples.
"""

import numpy as np
from numpy.typing import NDArray

BARS = 12

Bars = list[tuple[int, int, int]]
"""(first length, last length, how many examples) of neighbouring stretches."""


def histogram(lengths: NDArray[np.int32] | NDArray[np.int64], *, bars: int = BARS) -> Bars:
    """(first length, last length, how many examples) of at most `bars` equally wide stretches, from lengths [N]."""
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // bars)
    counts = np.bincount((lengths - low) // width)
    return [(low + width * bar, low + width * (bar + 1) - 1, int(count)) for bar, count in enumerate(counts)]
