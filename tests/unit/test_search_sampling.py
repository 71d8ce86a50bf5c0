"""What sampling may draw, and how often, against definitions in plain Python."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Toy

from unilmctl.search import Rules, Sampling, sample
from unilmctl.search.sampling import draw
from unilmctl.search.top import top

SEEDS = st.integers(0, 10_000)
SAMPLINGS = st.builds(
    Sampling,
    seed=st.just(1),
    temperature=st.sampled_from([0.5, 1.0, 1.8]),
    top_k=st.sampled_from([None, None, 1, 3, 40]),
    top_p=st.sampled_from([None, 0.3, 0.9, 0.995]),
    min_p=st.sampled_from([None, 0.02, 0.4, 1.0]),
    typical_p=st.sampled_from([None, 0.2, 0.9]),
)


def filtered(logits: list[float], sampling: Sampling) -> dict[int, float]:
    """The probability of every token that may be drawn: the definition, one filter after another."""
    weights = {token: math.exp(logit / sampling.temperature) for token, logit in enumerate(logits)}
    left = normalised(dict(sorted(weights.items(), key=lambda entry: -entry[1])))
    if sampling.top_k is not None:
        left = normalised(dict(list(left.items())[: sampling.top_k]))
    if sampling.min_p is not None:
        left = normalised({token: p for token, p in left.items() if p >= sampling.min_p * max(left.values())})
    if sampling.top_p is not None:
        left = normalised(fewest(left, sampling.top_p))
    if sampling.typical_p is not None:
        entropy = -sum(p * math.log(p) for p in left.values() if p > 0)
        near = sorted(left.items(), key=lambda entry: abs(-math.log(max(entry[1], 1e-300)) - entropy))
        left = normalised(fewest(dict(near), sampling.typical_p))
    return left


def normalised(weights: dict[int, float]) -> dict[int, float]:
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def fewest(probabilities: dict[int, float], enough: float) -> dict[int, float]:
    """The first that hold `enough` together."""
    kept: dict[int, float] = {}
    for token, probability in probabilities.items():
        if sum(kept.values()) < enough:
            kept[token] = probability
    return kept


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS, sampling=SAMPLINGS, size=st.sampled_from([2, 5, 64, 130, 700]), scale=st.sampled_from([0.1, 1, 4]))
def test_every_number_draws_the_token_that_the_definition_gives(
    seed: int, sampling: Sampling, size: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, scale, (2, 3, size))
    numbers = random.random((2, 3))
    scores = torch.from_numpy(logits).float().log_softmax(-1)
    found = draw(scores, torch.from_numpy(numbers), sampling)
    for place in product(range(2), range(3)):
        chances = filtered(scores[place].tolist(), sampling)
        falling = sorted(chances.items(), key=lambda entry: -entry[1])
        ends = np.cumsum([chance for _, chance in falling])
        # Rounding may decide for the neighbour where the number falls on the border of two tokens.
        near = {
            falling[min(int((ends < numbers[place] + slack).sum()), len(falling) - 1)][0] for slack in (-1e-5, 1e-5)
        }
        assert int(found[place]) in near


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, sampling=SAMPLINGS, size=st.sampled_from([130, 640, 6400]))
def test_what_is_drawn_for_a_row_does_not_depend_on_the_others_even_among_equals(
    seed: int, sampling: Sampling, size: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(6, 1, size, generator=random).mul(torch.tensor([0.1, 0.5, 1, 2, 4, 8])[:, None, None])
    scores = scores.bfloat16().float().log_softmax(-1)
    numbers = torch.rand(6, 1, generator=random, dtype=torch.double)
    together = draw(scores, numbers, sampling)
    alone = [draw(scores[place : place + 1], numbers[place : place + 1], sampling) for place in range(6)]
    assert together.tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize("sampling", [Sampling(1), Sampling(1, min_p=1.0), Sampling(1, top_p=0.999)])
def test_equal_tokens_are_drawn_in_the_order_of_their_numbers(sampling: Sampling) -> None:
    scores = torch.full((1, 700, 6400), -50.0)
    equal = torch.arange(700) * 9 + torch.arange(700) % 7
    scores[..., equal] = 0.0
    numbers = (torch.arange(700).double()[None] + 0.5) / 700
    assert draw(scores.log_softmax(-1), numbers, sampling)[0].tolist() == equal.tolist()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1, min_p=0.3),
        Sampling(1, typical_p=0.7),
        Sampling(1, top_p=0.8),
        Sampling(1, temperature=1.5, top_k=3, top_p=0.9),
        Sampling(1, top_k=3, min_p=0.05, typical_p=0.9),
    ],
)
def test_outputs_come_as_often_as_enumeration_says(sampling: Sampling) -> None:
    toy, rules, count = Toy(8, sentences=1, depth=2), Rules(END, max_length=3), 3000
    drawn = sample(*toy.start(), toy.step, rules, sampling=sampling, samples=count)[0]
    counts = Counter(tuple(hypothesis.ids) for hypothesis in drawn)
    expected: Counter[tuple[int, ...]] = Counter()
    for first, chance in filtered(toy.table[0, 0].tolist(), sampling).items():
        if first == END:
            expected[()] += chance
            continue
        for second, further in filtered(toy.table[0, first + 1].tolist(), sampling).items():
            expected[(first,) if second == END else (first, second)] += chance * further
    assert set(counts) <= set(expected)
    for ids, chance in expected.items():
        assert counts[ids] / count == pytest.approx(chance, abs=4 * math.sqrt(0.25 / count))


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    shape=st.sampled_from([(640,), (2, 1280), (2, 3, 6400), (3, 700)]),
    count=st.sampled_from([1, 2, 7, 30, 2000]),
    hidden=st.booleans(),
)
def test_the_largest_are_those_of_a_sort(seed: int, shape: tuple[int, ...], count: int, *, hidden: bool) -> None:
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if hidden:
        scores[..., 5:] = float("-inf")
    values, places = top(scores, count)
    expected = scores.sort(-1, descending=True).values[..., :count]
    assert values.tolist() == expected.tolist()
    assert scores.gather(-1, places).tolist() == expected.tolist()
    assert all(len(set(row)) == len(row) for row in places.view(-1, places.shape[-1]).tolist())


def test_the_first_of_equal_scores_is_the_largest() -> None:
    scores = torch.zeros(2, 6400)
    scores[0, [6000, 300, 301]] = 1.0
    assert top(scores, 1)[1].tolist() == [[300], [0]]
