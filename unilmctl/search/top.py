"""The largest of many numbers.

Shapes: K wanted, V vocabulary.
"""

from torch import Tensor


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of `scores` [..., V], largest first, and their places: [..., K] each, K at most V."""
    values, places = scores.topk(min(count, scores.shape[-1]), dim=-1)
    return values, places
