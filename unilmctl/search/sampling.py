"""Random choice: which tokens may be drawn, and the numbers that decide.

One number is drawn per output and step, a pure function of (seed, key of the sentence, which sample, step), and looked
up in the cumulative sum over the tokens that are left, likeliest first: what is drawn for a sentence depends neither
on the batch it is in nor on the order of the input.

A vocabulary is large and most of it is never drawn, so that only as many of the likeliest tokens are looked at as
decide; which these are does not change what is drawn, because equal scores are ordered by token.

Shapes: N sentences, B outputs a sentence, R rows, V vocabulary, K likeliest tokens.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unilmctl.search.top import top

WIDTHS = (64, 512, 4096)
"""How many of the likeliest tokens are looked at, one after another, before all are."""


@dataclass(frozen=True)
class Sampling:
    """How to draw: from the softmax of logits / `temperature`, after these filters, each on what the last one left.

    `top_k`: that many of the likeliest. `min_p`: those with at least this share of the likeliest one's probability
    (Nguyen et al. 2024, arXiv 2407.01082). `top_p`: the fewest of the likeliest that hold this probability (Holtzman et
    al. 2019, arXiv 1904.09751). `typical_p`: the fewest that hold it, taken in the order of how near their
    surprise is to the expected one, the entropy (Meister et al. 2022, arXiv 2202.00666).
    """

    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None


def draw(scores: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [N, B] drawn from log-probabilities [N, B, V] with uniform numbers `draws` [N, B] in [0, 1).

    The token is any where the probabilities are all 0.
    """
    rows, numbers = scores.flatten(0, 1), draws.flatten()
    if sampling.top_k is None:
        return _searched((rows / sampling.temperature).log_softmax(-1), numbers, sampling).view_as(draws)
    likely, tokens = _falling(rows, sampling.top_k)
    return _drawn((likely / sampling.temperature).log_softmax(-1), tokens, numbers, sampling).view_as(draws)


def _searched(scores: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [R] drawn from log-probabilities [R, V]: rows for which too few tokens were looked at look at more."""
    size = scores.shape[-1]
    found = torch.zeros_like(draws, dtype=torch.long)
    rows = torch.arange(len(draws), device=draws.device)
    for width in [*(width for width in WIDTHS if width < size), size]:
        likely, tokens = _falling(scores if len(rows) == len(scores) else scores[rows], width)
        ready = _enough(likely, draws[rows], sampling) | (width == size)
        found[rows[ready]] = _drawn(likely[ready], tokens[ready], draws[rows[ready]], sampling)
        rows = rows[~ready]
        if len(rows) == 0:
            break
    return found


def _enough(likely: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Where no token from the last of `likely` [R, K] on can be drawn with `draws` [R], nor equals one that can."""
    if sampling.min_p is not None:
        return likely[:, -1] < likely[:, 0] + math.log(sampling.min_p)
    if sampling.typical_p is not None and sampling.top_p is None:
        return torch.zeros_like(draws, dtype=torch.bool)
    needed = draws if sampling.top_p is None else torch.full_like(draws, sampling.top_p)
    mass = likely.double().exp() * (likely > likely[:, -1:])
    return mass.sum(-1) > needed


def _drawn(likely: Tensor, tokens: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [R] drawn from `tokens` [R, K] with log-probabilities `likely`, in falling order."""
    mass = _filtered(likely.double().exp(), sampling)
    places = torch.searchsorted(mass.cumsum(-1), draws[:, None], right=True)
    last = (mass > 0).cumsum(-1).argmax(-1, keepdim=True)  # a sum can stay below 1
    return tokens.gather(-1, torch.minimum(places, last))[:, 0]


def _falling(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores and their tokens, equal ones in the order of the tokens."""
    if count >= scores.shape[-1]:
        scores, tokens = scores.sort(dim=-1, descending=True, stable=True)
        return scores, tokens
    values, places = top(scores, count)
    tokens, order = places.sort(dim=-1)
    values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, tokens.gather(-1, order)


def _filtered(mass: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [R, K], in falling order, with those that may not be drawn made 0 and the others larger."""
    if sampling.min_p is not None:
        mass = _kept(mass, mass >= sampling.min_p * mass[..., :1])
    if sampling.top_p is not None:
        mass = _kept(mass, mass.cumsum(-1) - mass < sampling.top_p)
    if sampling.typical_p is not None:
        entropy = torch.special.entr(mass).cumsum(-1)[..., -1:]
        order = (-mass.log() - entropy).abs().sort(dim=-1, stable=True).indices
        near = mass.gather(-1, order)
        enough = near.cumsum(-1) - near < sampling.typical_p
        mass = _kept(mass, enough.scatter(-1, order, enough))
    return mass


def _kept(mass: Tensor, kept: Tensor) -> Tensor:
    """The probabilities under the condition that one of the `kept` is drawn."""
    mass = mass * kept
    # Unlike that of sum(), the order of cumsum() is the same however many zeros follow.
    return mass / mass.cumsum(-1)[..., -1:]


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
