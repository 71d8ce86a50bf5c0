"""Batches: every example once, within the budget, little padding, a function of (seed, epoch)."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unilmctl.data import batching
from unilmctl.data.batching import Ints, batches, packed_batches, padded_length, padding


def row(source: Ints, target: Ints) -> Ints:
    return source + 2 * target + 3


def made(lengths: NDArray[np.int64], budget: int, seed: int = 1, epoch: int = 0) -> list[Ints]:
    return batches(lengths, lengths // 2, row_length=row, batch_tokens=budget, seed=seed, epoch=epoch)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=120), st.integers(1, 2000), st.integers(0, 2**32), st.integers(0, 99))
@example([], 10, 0, 0)
@example([300], 1, 0, 0)
def test_every_example_once_within_the_budget(values: list[int], budget: int, seed: int, epoch: int) -> None:
    lengths = np.array(values, dtype=np.int64)
    got = made(lengths, budget, seed, epoch)
    assert sorted(i for batch in got for i in batch.tolist()) == list(range(len(values)))
    rows = row(lengths, lengths // 2)
    for batch in got:
        assert len(batch) == 1 or len(batch) * padded_length(rows[batch].max()) <= budget


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 500))
def test_batches_are_filled(values: list[int], budget: int) -> None:
    """The slow twin: rows in order of length, a batch closed when one more does not fit."""
    rows = sorted(padded_length(row(np.array(values), np.array(values) // 2)).tolist())
    sizes, size = [], 0
    for length in rows:
        if size and (size + 1) * length > budget:
            sizes.append(size)
            size = 0
        size += 1
    sizes.append(size)
    assert sorted(map(len, made(np.array(values), budget))) == sorted(sizes)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    plain = [batch.tolist() for batch in made(lengths, 1000, 1, 0)]
    assert plain == [batch.tolist() for batch in made(lengths, 1000, 1, 0)]
    for seed, epoch in ((1, 1), (2, 0), (0, 1)):
        assert plain != [batch.tolist() for batch in made(lengths, 1000, seed, epoch)]


def test_epochs_mix_batches_and_their_order() -> None:
    lengths = np.full(400, 20)
    first, second = made(lengths, 500, epoch=0), made(lengths, 500, epoch=1)
    assert {frozenset(batch.tolist()) for batch in first} != {frozenset(batch.tolist()) for batch in second}
    varied = np.random.default_rng(0).integers(1, 100, 2000)
    longest = [int(varied[batch].max()) for batch in made(varied, 1000)]
    assert longest != sorted(longest)


@pytest.mark.parametrize("budget", [2048, 16384])
def test_little_is_padded(budget: int) -> None:
    random = np.random.default_rng(0)
    source, target = random.poisson(27, 20_000) + 5, random.poisson(23, 20_000) + 3
    got = batches(source, target, row_length=row, batch_tokens=budget, seed=1, epoch=0)
    assert padding(row(source, target), got) < 0.04


def test_padding_counts_empty_slots() -> None:
    assert padding(np.array([1, 3]), [np.array([0, 1])]) == pytest.approx(4 / 8)
    assert padding(np.array([4, 4]), [np.array([0, 1])]) == 0
    assert padding(np.array([], dtype=np.int64), []) == 0


def test_a_million_examples_are_ordered_quickly() -> None:
    lengths = np.random.default_rng(0).integers(5, 300, 1_000_000)
    started = time.process_time()
    assert sum(map(len, made(lengths, 16384))) == 1_000_000
    assert time.process_time() - started < 5  # a quarter of a second on an idle machine


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=120), st.integers(1, 2000), st.integers(0, 2**32), st.integers(0, 99))
def test_packed_batches_hold_every_example_once_and_are_filled(
    values: list[int], budget: int, seed: int, epoch: int
) -> None:
    lengths = np.array(values, dtype=np.int64)
    got = packed_batches(lengths, lengths // 2, row_length=row, batch_tokens=budget, seed=seed, epoch=epoch)
    assert sorted(i for batch in got for i in batch.tolist()) == list(range(len(values)))
    rows = row(lengths, lengths // 2)
    for batch, following in zip(got, [*got[1:], None], strict=False):
        assert len(batch) == 1 or rows[batch].sum() <= budget
        assert following is None or rows[batch].sum() + rows[following[0]] > budget


@pytest.mark.parametrize("longest", [300, 100_000])
def test_the_order_is_that_of_wide_numbers(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers and slices save memory, and change nothing: the slow twin uses 64 bits and all examples at once."""
    monkeypatch.setattr(batching, "SLICE", 100)
    lengths = np.random.default_rng(0).integers(1, longest, 350)
    rows = padded_length(row(lengths, lengths // 2))
    random = np.random.default_rng([1, 5])
    shuffled = random.permutation(len(rows))
    order = shuffled[np.argsort(rows[shuffled], kind="stable")]
    got = made(lengths, 900, 1, 5)
    places = np.argsort([np.flatnonzero(order == batch[0])[0] for batch in got])
    assert np.concatenate([got[place] for place in places]).tolist() == order.tolist()
    assert places.tolist() == np.argsort(random.permutation(len(got))).tolist()
    small = batches(
        lengths.astype(np.int32), (lengths // 2).astype(np.int32), row_length=row, batch_tokens=900, seed=1, epoch=5
    )
    assert [batch.tolist() for batch in small] == [batch.tolist() for batch in got]
