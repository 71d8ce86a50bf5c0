"""The largest of many numbers, found by the largest of every chunk of them.

The k largest lie in the k chunks with the largest maxima, and a machine takes maxima much faster than it sorts.

Shapes: K wanted, V vocabulary, Q chunks.
"""

import torch
from torch import Tensor

CHUNK = 64


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of `scores` [..., V], largest first, and their places: [..., K] each, K at most V.

    Of equal scores a count of 1 takes the first; otherwise their order depends on their own row and the count alone.
    """
    size = scores.shape[-1]
    if size % CHUNK or size < 4 * count * CHUNK:
        return _largest(scores, min(count, size))
    chunks = scores.reshape(-1, CHUNK)
    maxima = chunks.amax(-1).view(*scores.shape[:-1], -1)  # [..., Q]
    best = _largest(maxima, count)[1]  # [..., K]
    starts = torch.arange(0, len(chunks), maxima.shape[-1], device=scores.device).view(*scores.shape[:-1], 1)
    values, places = _largest(chunks.index_select(0, (starts + best).flatten()).view(*best.shape[:-1], -1), count)
    return values, best.gather(-1, places // CHUNK) * CHUNK + places % CHUNK


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, places = scores.max(-1, keepdim=True) if count == 1 else scores.topk(count, dim=-1)
    return values, places
