"""Searches in which every output goes its own way: greedy and sampling.

Sampling draws one number per output and step, a pure function of (seed, key of the sentence, which sample, step), and
looks it up in the distribution's cumulative sum: what is drawn for a sentence depends neither on the batch it is in
nor on the order of the input.

Shapes: N sentences, B outputs a sentence, t tokens so far, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unilmctl.search.rules import NEVER, Prefix, Rules
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import S, Step

Pick = Callable[[Tensor, Tensor, int], Tensor]
"""Logits [N, B, V], the numbers [N] of the sentences and the step give the tokens [N, B] to write."""


@dataclass(frozen=True)
class Sampling:
    """How to draw: logits divided by `temperature`, the `top_k` likeliest tokens, the likeliest that hold `top_p`."""

    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def greedy(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    scoring: Scoring = SUM,
    prefix: Prefix | None = None,
) -> list[list[Hypothesis]]:
    """The likeliest token at every step, one output for each of N sentences; arguments as in `beam_search`."""

    def likeliest(logits: Tensor, sentences: Tensor, time: int) -> Tensor:
        return logits.argmax(-1)

    return _follow(first[:, None], state, step, rules, likeliest, scoring, prefix)


def sample(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    sampling: Sampling,
    samples: int = 1,
    keys: list[int] | None = None,
    scoring: Scoring = SUM,
    prefix: Prefix | None = None,
) -> list[list[Hypothesis]]:
    """`samples` random outputs of each sentence, best first; `keys` name the sentences (None: by their place)."""
    names = np.arange(len(first)) if keys is None else np.array(keys)

    def drawn(logits: Tensor, sentences: Tensor, time: int) -> Tensor:
        draws = uniform(sampling.seed, names[sentences.numpy()], samples, time)
        return _draw(logits, torch.from_numpy(draws), sampling)

    rows = torch.arange(len(first)).repeat_interleave(samples)
    many = first[:, None].repeat(1, samples, 1)
    return _follow(many, state.reordered(rows), step, rules, drawn, scoring, prefix)


def _follow(
    logits: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    pick: Pick,
    scoring: Scoring,
    prefix: Prefix | None,
) -> list[list[Hypothesis]]:
    """Writes B outputs of each sentence, one token a step; sentences all of whose outputs ended leave the batch."""
    count, outputs, _ = logits.shape
    waiting = torch.arange(count)
    tokens = torch.zeros(count, outputs, 0, dtype=torch.long)
    steps = torch.zeros(count, outputs, 0)
    results: list[list[Hypothesis]] = [[] for _ in range(count)]
    for time in range(rules.max_length):
        normalizer = logits.logsumexp(-1)
        rules.apply(logits, tokens, prefix)
        chosen = pick(logits, waiting, time)  # [N, B]
        score = logits.gather(2, chosen[..., None])[..., 0] - normalizer
        tokens, steps = torch.cat((tokens, chosen[..., None]), 2), torch.cat((steps, score[..., None]), 2)
        done = ((tokens == rules.end).any(-1) | (score == NEVER)).all(-1)
        for sentence in done.nonzero()[:, 0].tolist():
            results[int(waiting[sentence])] = _ended(tokens[sentence], steps[sentence], rules.end, scoring)
        if done.any():
            stay = (~done).nonzero()[:, 0]
            if len(stay) == 0:
                break
            rows = (stay[:, None] * outputs + torch.arange(outputs)).flatten()
            state = state.reordered(rows, stay)
            waiting, tokens, steps = waiting[stay], tokens[stay], steps[stay]
            prefix = None if prefix is None else prefix.select(stay)
        flat, state = step(tokens[:, :, -1].flatten(), state)
        logits = flat.view(len(waiting), outputs, -1)
    return results


def _ended(tokens: Tensor, steps: Tensor, end: int, scoring: Scoring) -> list[Hypothesis]:
    """Outputs [B, t], each cut at its first end token, best first; those the rules made impossible are dropped."""
    found = []
    for ids, scores in zip(tokens.tolist(), steps.tolist(), strict=True):
        if end in ids:
            length = ids.index(end) + 1
            total = sum(scores[:length])
            if total > NEVER:
                found.append(Hypothesis(ids[: length - 1], total / scoring.divisor(length), scores[:length]))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def _draw(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [N, B] drawn from logits [N, B, V] with uniform numbers `draws` [N, B] in [0, 1)."""
    kept = logits.shape[2] if sampling.top_k is None else min(sampling.top_k, logits.shape[2])
    scores, tokens = logits.topk(kept, dim=-1)
    mass = (scores.double() / sampling.temperature).softmax(-1)
    if sampling.top_p is not None:
        mass = mass * ((mass.cumsum(-1) - mass) < sampling.top_p)
    heaped = mass.cumsum(-1)
    place = torch.searchsorted(heaped, (draws * heaped[..., -1])[..., None], right=True)
    likely = (mass > 0).sum(-1, keepdim=True)  # falling order: these come first
    return tokens.gather(2, torch.minimum(place, (likely - 1).clamp(min=0)))[..., 0]


def uniform(seed: int, keys: NDArray[np.int64], samples: int, time: int) -> NDArray[np.float64]:
    """Numbers [N, samples] in [0, 1), each a function of (seed, key, sample, time) alone: SplitMix64 in a chain.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    numbers = [np.array([[seed]]), keys[:, None], np.arange(samples)[None], np.array([[time]])]
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
