"""Greedy search and sampling."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Toy

from unilmctl.search import Hypothesis, Prefix, Rules, Sampling, greedy, sample
from unilmctl.search.sampling import uniform

SEEDS = st.integers(0, 10_000)
RULES = Rules(END, max_length=5)


def draw(toy: Toy, sampling: Sampling, **options: object) -> list[list[Hypothesis]]:
    return sample(*toy.start(), toy.step, RULES, sampling=sampling, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_greedy_takes_the_likeliest_token_each_time(seed: int) -> None:
    toy = Toy(seed, sentences=3)
    for sentence, (best,) in enumerate(greedy(*toy.start(), toy.step, RULES)):
        ids: list[int] = []
        while len(ids) < RULES.max_length - 1:
            place = 0
            for token in ids:
                place = place * toy.vocabulary + token + 1
            token = int(toy.table[sentence, place].argmax())
            if token == END:
                break
            ids.append(token)
        assert best.ids == ids
        assert best.score == pytest.approx(sum(toy.token_scores(sentence, [*ids, END])), abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, order=st.permutations(range(4)))
def test_draws_depend_on_the_key_alone(seed: int, order: list[int]) -> None:
    toy, sampling = Toy(seed, sentences=4), Sampling(seed=7)
    together = draw(toy, sampling, samples=3, keys=[10, 11, 12, 13])
    turned = draw(toy.only(order), sampling, samples=3, keys=[10 + sentence for sentence in order])
    assert [turned[order.index(sentence)] for sentence in range(4)] == together
    assert draw(toy.only([2]), sampling, samples=3, keys=[12])[0] == together[2]


def test_seeds_differ_and_samples_of_one_sentence_too() -> None:
    toy = Toy(1, sentences=1, depth=4, scale=0.1)
    seen = {tuple(h.ids) for seed in range(20) for h in draw(toy, Sampling(seed), samples=3)[0]}
    assert len(seen) > 15


def test_frequencies_are_those_of_the_model() -> None:
    toy = Toy(2, sentences=1, depth=0)
    drawn = sample(*toy.start(), toy.step, Rules(END, max_length=2), sampling=Sampling(1), samples=4000)[0]
    counts = Counter(h.ids[0] if h.ids else END for h in drawn)
    expected = toy.table[0, 0].softmax(-1).tolist()
    for token, probability in enumerate(expected):
        assert counts[token] / 4000 == pytest.approx(probability, abs=4 * math.sqrt(0.25 / 4000))


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(1, top_k=1), {3}),
        (Sampling(1, top_k=2), {2, 3}),
        (Sampling(1, top_p=0.5), {3}),
        (Sampling(1, top_p=0.7), {2, 3}),
        (Sampling(1, top_p=1.0), {0, 1, 2, 3}),
        (Sampling(1, temperature=0.01), {3}),
        (Sampling(1, top_k=3, top_p=0.99), {1, 2, 3}),
    ],
)
def test_what_may_be_drawn(sampling: Sampling, possible: set[int]) -> None:
    toy = Toy(1, sentences=1, depth=0)
    toy.table[0, 0] = torch.tensor([0.05, 0.1, 0.25, 0.6]).log()
    drawn = sample(*toy.start(), toy.step, Rules(END, max_length=2), sampling=sampling, samples=400)[0]
    assert {h.ids[0] if h.ids else END for h in drawn} == possible


def test_scores_of_samples_are_the_models_own_whatever_the_temperature() -> None:
    toy = Toy(5, sentences=1, depth=4)
    for hypothesis in draw(toy, Sampling(3, temperature=3.0, top_k=3), samples=5)[0]:
        expected = toy.token_scores(0, [*hypothesis.ids, END])
        assert hypothesis.token_scores == pytest.approx(expected, abs=1e-5)
        assert hypothesis.score == pytest.approx(sum(expected), abs=1e-5)


def test_samples_are_sorted_and_begin_as_they_must() -> None:
    toy = Toy(5, sentences=2, depth=4)
    found = draw(toy, Sampling(3), samples=6, prefix=Prefix.of([[2, 1], [3]]))
    for hypotheses, prefix in zip(found, ([2, 1], [3]), strict=True):
        assert all(h.ids[: len(prefix)] == prefix for h in hypotheses)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_uniform_numbers_are_uniform_and_never_change() -> None:
    numbers = uniform(1, np.arange(200), 50, np.full(200, 3)).ravel()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    assert uniform(1, np.array([0, 5]), 2, np.array([0, 0])).round(6).tolist() == [
        [0.779398, 0.155752],
        [0.540571, 0.110732],
    ]
