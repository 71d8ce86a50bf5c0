"""Random choice: which tokens may be drawn, and the numbers that decide.

One number is drawn per output and step, a pure function of (seed, key of the sentence, which sample, step), and looked
up in the distribution's cumulative sum: what is drawn for a sentence depends neither on the batch it is in nor on the
order of the input.

Shapes: N sentences, B outputs a sentence, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unilmctl.search.top import top


@dataclass(frozen=True)
class Sampling:
    """How to draw: logits divided by `temperature`, the `top_k` likeliest tokens, the likeliest that hold `top_p`."""

    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def draw(scores: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [N, B] drawn from scores [N, B, V] with uniform numbers `draws` [N, B] in [0, 1)."""
    kept = scores.shape[2] if sampling.top_k is None else sampling.top_k
    likely, tokens = top(scores, kept)
    mass = (likely.double() / sampling.temperature).softmax(-1)
    if sampling.top_p is not None:
        mass = mass * ((mass.cumsum(-1) - mass) < sampling.top_p)
    heaped = mass.cumsum(-1)
    place = torch.searchsorted(heaped, (draws * heaped[..., -1])[..., None], right=True)
    possible = (mass > 0).sum(-1, keepdim=True)  # falling order: these come first
    return tokens.gather(2, torch.minimum(place, (possible - 1).clamp(min=0)))[..., 0]


def uniform(seed: int, keys: NDArray[np.int64], samples: int, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers [N, samples] in [0, 1), each a function of (seed, key, sample, time) alone: SplitMix64 in a chain.

    `keys` and `times` are [N]. Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    numbers = [np.array([[seed]]), keys[:, None], np.arange(samples)[None], times[:, None]]
    state = np.zeros((1, 1), dtype=np.uint64)
    for number in numbers:
        state = _mixed(state ^ _mixed(number.astype(np.uint64) + _GOLDEN))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser; arrays of unsigned numbers wrap around."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
