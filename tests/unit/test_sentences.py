"""Sentence tasks: what each class looks like, how often it is drawn, and that nothing is lost or too long."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.objectives import build
from unilmctl.objectives.sentences import CLASSES, PAIRINGS, Paired, with_pair_label
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Passage, leaks, pack

QUICK = settings(deadline=None, max_examples=50)
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000, max_source=64, max_target=64)
TIGHT = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000, max_source=9, max_target=9)


def passage(*sizes: int, first: int = 10, document: int = 0, units: bool = False) -> Passage:
    """Sentences of these sizes whose tokens count up from `first`; each unit is two tokens."""
    starts = np.cumsum([first, *sizes])
    return Passage(
        tuple(np.arange(start, start + size) for start, size in zip(starts, sizes, strict=False)),
        tuple(np.arange(size) // 2 for size in sizes) if units else None,
        document,
    )


TEXT, OTHER = passage(3, 2, 4, 1), passage(2, 3, 2, first=500, document=1)


def draws(task: str, text: Passage = TEXT, frame: Frame = FRAME, count: int = 600) -> list[Paired]:
    return [PAIRINGS[task](text, OTHER, frame, np.random.default_rng(seed)) for seed in range(count)]


def both(example: Example) -> list[int]:
    return [*example.source.tolist(), *example.target.tolist()]


WHOLE = list(range(10, 20))
CUTS = {3, 5, 9}


def test_the_whole_passage():
    ((example, label),) = draws("none", count=1)
    assert (example.source.tolist(), example.target.tolist(), label) == (WHOLE, [], None)


def test_next_sentence():
    for example, label in draws("next-sentence"):
        assert example.source.tolist() == WHOLE[: len(example.source)]
        assert len(example.source) in CUTS
        if label == 0:
            assert both(example) == WHOLE
        else:
            most = len(WHOLE) - len(example.source)  # rows are as long as their passages: batches are made by those
            assert example.target.tolist() in [list(range(start, 507))[:most] for start in (500, 502, 505)]


def test_sentence_order():
    for example, label in draws("sentence-order"):
        first, second = (example.target, example.source) if label else example[:2]
        assert [*first.tolist(), *second.tolist()] == WHOLE
        assert len(first) in CUTS


def test_sentence_distance():
    for example, label in draws("sentence-distance"):
        size, start = len(example.source), int(example.target[0])
        assert example.source.tolist() == WHOLE[:size]
        assert size in CUTS
        if label == 2:
            assert start >= 500
            assert len(example.target) <= len(WHOLE) - size
        else:
            assert example.target.tolist() == WHOLE[start - 10 :]
            assert (start - 10 == size) == (label == 0)
            assert start - 10 in CUTS


def test_sentence_reorder_numbers_every_order_once():
    seen: dict[int, set[tuple[int, ...]]] = {}
    for example, label in draws("sentence-reorder", count=3000):
        assert sorted(example.source.tolist()) == WHOLE
        assert len(example.target) == 0
        steps = np.flatnonzero(np.diff(example.source) != 1)
        heads = example.source[np.concatenate(([0], steps + 1))]
        seen.setdefault(label, set()).add(tuple(np.argsort(np.argsort(heads)).tolist()))
    assert set(seen) == set(range(CLASSES["sentence-reorder"]))
    orders = [order for count in (1, 2, 3) for order in permutations(range(count))]
    for label, order in enumerate(orders):
        assert seen[label] == {_merged(order)}, label


def _merged(order: tuple[int, ...]) -> tuple[int, ...]:
    """The order of what is left once pieces that follow each other are one."""
    heads = [piece for index, piece in enumerate(order) if index == 0 or piece != order[index - 1] + 1]
    return tuple(sorted(heads).index(piece) for piece in heads)


@pytest.mark.parametrize(
    ("task", "shares"),
    [
        ("next-sentence", {0: 1 / 2, 1: 1 / 2}),
        ("sentence-order", {0: 1 / 2, 1: 1 / 2}),
        ("sentence-distance", {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
        ("sentence-reorder", {0: 1 / 3, 1: 1 / 6, 2: 1 / 6} | dict.fromkeys(range(3, 9), 1 / 18)),
    ],
)
def test_classes_are_drawn_as_often_as_the_papers_say(task: str, shares: dict[int, float]):
    count = Counter(label for _, label in draws(task, count=2000))
    assert set(count) == set(range(CLASSES[task]))
    for label, share in shares.items():
        assert count[label] / 2000 == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("task", CLASSES)
def test_one_sentence_is_cut_between_any_two_tokens(task: str):
    found = draws(task, passage(5))
    assert len({label for _, label in found}) == CLASSES[task]
    if task == "next-sentence":
        assert {len(example.source) for example, _ in found} == {1, 2, 3, 4}


@pytest.mark.parametrize("task", CLASSES)
def test_two_sentences_are_never_apart_in_one_document(task: str):
    labels = {label for _, label in draws(task, passage(2, 3))}
    assert labels == {"sentence-distance": {0, 2}, "sentence-reorder": {0, 1, 2}}.get(task, {0, 1})


@pytest.mark.parametrize("task", PAIRINGS)
def test_a_token_or_none_has_no_class(task: str):
    for text in (passage(1), passage(0), passage()):
        example, label = PAIRINGS[task](text, OTHER, FRAME, np.random.default_rng(0))
        assert both(example) == [10] * sum(len(sentence) for sentence in text.sentences)
        assert label == (0 if task == "sentence-reorder" else None)


@QUICK
@given(
    st.sampled_from(sorted(PAIRINGS)), st.lists(st.integers(0, 9), max_size=6), st.integers(0, 999), st.integers(4, 40)
)
def test_two_segments_fit_a_row_and_units_stay_with_their_tokens(task: str, sizes: list[int], seed: int, most: int):
    frame = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000, max_source=most, max_target=most)
    text, other = passage(*sizes, units=True), passage(3, 8, 6, first=500, units=True)
    example, label = PAIRINGS[task](text, other, frame, np.random.default_rng(seed))
    for tokens, units in (example[::2], example[1::2]):
        assert (units is None and len(tokens) == 0) or len(units) == len(tokens)
        if len(tokens) > 1:
            together = np.diff(units) == 0
            assert set(np.diff(tokens)[together].tolist()) <= {1}
            assert (np.diff(units) >= 0).all()
    row = with_pair_label(build("bidirectional")(example, frame, np.random.default_rng(seed)), task, label)
    if len(example.target):
        assert len(row) == len(both(example)) + 3 <= max(most, 5)
    assert leaks(row) == []


def test_both_segments_lose_tokens_at_both_ends():
    found = [example for example, label in draws("next-sentence", passage(10, 10), TIGHT) if label == 0]
    assert {(len(example.source), len(example.target)) for example in found} == {(3, 3)}
    assert len({int(example.source[0]) for example in found}) > 4
    short = [example for example, label in draws("next-sentence", passage(1, 10), TIGHT) if label == 0]
    assert {(len(example.source), len(example.target)) for example in short} == {(1, 5)}


def test_the_label_stands_at_the_first_slot_and_asks_for_no_token():
    row = build("bidirectional")(Example(TEXT.sentences[0], TEXT.sentences[1]), FRAME, np.random.default_rng(0))
    assert with_pair_label(row, "next-sentence", None) is row
    labelled = with_pair_label(row, "next-sentence", 1)
    assert set(labelled.labels) == {LANGUAGE_MODEL, "next-sentence"}
    assert set(row.labels) == {LANGUAGE_MODEL}
    packed = pack([row, labelled]).labels["next-sentence"]
    assert (packed.slots.tolist(), packed.targets.tolist(), packed.answers.tolist()) == ([len(row)], [1], [-1])
