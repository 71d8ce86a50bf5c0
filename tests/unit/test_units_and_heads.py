"""Units and spans that are chosen whole, rows with labels for further heads, and rows of one text alone."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.objectives import BOUNDARY, CONTRASTIVE, REACH, REPLACED, Corruption, build, row_length, windowed, words
from unilmctl.objectives.sentences import PAIRINGS, sentence_units
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Passage, Row, leaks, pack

QUICK = settings(deadline=None, max_examples=50)
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000)
PLAIN = Corruption(random=0, keep=0)
NOTHING = np.array([], dtype=np.int64)


def text(size: int) -> Example:
    return Example(np.arange(10, 10 + size), NOTHING)


def draw(name: str, example: Example, corruption: Corruption = PLAIN, frame: Frame = FRAME, seed: int = 0) -> Row:
    return build(name, corruption)(example, frame, np.random.default_rng(seed))


# --------------------------------------------------------------------------------------------------------------- units

WITH_UNITS = ["bidirectional", "left-to-right", "right-to-left", "seq2seq", "partial", "span-boundary", "replaced"]


@pytest.mark.parametrize("name", WITH_UNITS)
@pytest.mark.parametrize("truncate", ["head", "tail"])
def test_given_units_are_chosen_whole_on_both_sides_and_after_cuts(name: str, truncate: str):
    example = Example(np.arange(10, 22), np.arange(30, 36), np.arange(12) // 3, np.arange(6) // 2)
    frame = replace(FRAME, max_source=9, truncate=truncate)
    for seed in range(30):
        row = draw(name, example, replace(PLAIN, units="given", target=0.4, span="token"), frame, seed)
        chosen = set(row.labels[LANGUAGE_MODEL].targets.tolist()) - {2}
        present = {*row.ids.tolist(), *chosen}
        for unit in ([10, 11, 12], [13, 14, 15], [16, 17, 18], [19, 20, 21], [30, 31], [32, 33], [34, 35]):
            assert len(chosen & set(unit)) in {0, len(present & set(unit))}


def test_units_of_one_side_alone():
    example = Example(np.arange(10, 14), np.arange(30, 34), None, np.array([0, 0, 0, 1]))
    seen = set()
    for seed in range(60):
        row = draw("bidirectional", example, replace(PLAIN, units="given", target=0.1, span="token"), FRAME, seed)
        seen.add(tuple(row.labels[LANGUAGE_MODEL].targets.tolist()))
    assert seen == {(10,), (11,), (12,), (13,), (30, 31, 32), (33,)}


def test_given_units_without_any_are_tokens():
    free = draw("bidirectional", text(20), replace(PLAIN, units="given"), seed=3)
    assert free.ids.tolist() == draw("bidirectional", text(20), PLAIN, seed=3).ids.tolist()


def test_words_by_the_vocabulary():
    continues = np.zeros(1000, dtype=bool)
    continues[[11, 12, 15]] = True
    assert words(continues, np.array([1, 10, 11, 12, 13, 14, 15, 2])).tolist() == [1, 2, 2, 2, 3, 4, 4, 5]
    seen = set()
    for seed in range(60):
        corruption = replace(PLAIN, units=partial(words, continues), target=0.1, span="token")
        seen.add(tuple(draw("bidirectional", text(6), corruption, seed=seed).labels[LANGUAGE_MODEL].targets.tolist()))
    assert seen == {(10, 11, 12), (13,), (14, 15)}


def test_spans_of_words_are_geometric_over_words():
    example = Example(np.arange(10, 310), NOTHING, np.arange(300) // 2)
    row = draw("span-boundary", example, replace(PLAIN, units="given", keep=0))
    slots = np.sort(row.labels[LANGUAGE_MODEL].slots)
    edges = np.flatnonzero(np.diff(slots) > 1)
    assert ((slots[edges + 1] - 1) % 2 == 0).all()  # a word begins at every odd slot
    assert (slots[edges] % 2 == 0).all()


@pytest.mark.parametrize("name", ["bidirectional", "partial"])
def test_a_span_has_one_fate_if_its_tokens_go_together(name: str):
    example = Example(np.arange(10, 40), NOTHING, np.arange(30) // 3)
    corruption = Corruption(target=0.5, span="token", units="given", together=True, random=0.3, keep=0.3)
    seen = set()
    for seed in range(100):
        row = draw(name, example, corruption, replace(FRAME, vocabulary=10**6), seed)
        slots = row.labels[LANGUAGE_MODEL].slots[-15:].tolist()  # those of `partial` that are corrupted come last
        answers = row.labels[LANGUAGE_MODEL].targets[-15:].tolist()
        fates = [
            "m" if row.ids[s] == 3 else "k" if row.ids[s] == a else "r" for s, a in zip(slots, answers, strict=True)
        ]
        for first in range(0, 15, 3):
            seen.add("".join(fates[first : first + 3]))
    assert seen == {"mmm", "kkk", "rrr"}


# --------------------------------------------------------------------------------------------------------------- heads


@QUICK
@given(st.integers(1, 60), st.floats(0, 0.6), st.integers(0, 10_000))
def test_boundaries_surround_their_span(size: int, rate: float, seed: int):
    row = draw("span-boundary", text(size), Corruption(target=rate), seed=seed)
    found = row.labels[BOUNDARY]
    masked = set(row.labels[LANGUAGE_MODEL].slots.tolist())
    assert found.aside is not None
    assert found.aside.shape == (len(found.slots), 2)
    for before, target, answer, (after, offset) in zip(*found[:3], found.aside, strict=True):
        slot = before + 1 + offset
        assert 0 <= before < slot < after < len(row)
        assert offset < REACH
        assert (answer, target) == (slot, slot + 9)
        assert set(range(before + 1, after)) <= masked
        assert row.ids[slot] != target
    assert leaks(row) == []
    assert leaks(pack([row, row])) == []


def test_every_hidden_token_has_a_boundary_label():
    row = draw("span-boundary", text(40), replace(PLAIN, target=0.4))
    assert sorted(row.labels[BOUNDARY].targets.tolist()) == sorted(row.labels[LANGUAGE_MODEL].targets.tolist())
    kept = draw("span-boundary", text(40), Corruption(target=0.4, keep=1, random=0))
    assert len(kept.labels[BOUNDARY].slots) == 0


def test_a_boundary_reaches_fifteen_tokens():
    example = Example(np.arange(10, 50), NOTHING, np.zeros(40, dtype=np.int64))
    row = draw("span-boundary", example, replace(PLAIN, units="given"))
    assert len(row.labels[LANGUAGE_MODEL].slots) == 40
    aside = row.labels[BOUNDARY].aside
    assert aside is not None
    assert aside.tolist() == [[41, offset] for offset in range(REACH)]


def test_replaced_asks_about_every_slot():
    example = Example(np.arange(10, 30), np.arange(30, 40))
    row = draw("replaced", example, Corruption(random=0, keep=0.15))
    found = row.labels[REPLACED]
    assert found.slots.tolist() == list(range(len(row)))
    assert set(found.targets.tolist()) == {0}
    assert set(found.answers.tolist()) == {-1}
    restored = row.ids.copy()
    restored[row.labels[LANGUAGE_MODEL].slots] = row.labels[LANGUAGE_MODEL].targets
    assert restored.tolist() == [1, *range(10, 30), 2, *range(30, 40), 2]


def test_similar_writes_a_pair_in_both_directions():
    example = Example(np.array([10, 11]), np.array([20]))
    row = draw("similar", example, frame=replace(FRAME, separator_in="source"))
    assert row.ids.tolist() == [1, 10, 11, 2, 20, 1, 20, 2, 10, 11]
    assert row.document.tolist() == [0] * 5 + [1] * 5
    assert row.labels[LANGUAGE_MODEL].targets.tolist() == [20, 2, 10, 11, 2]
    found = row.labels[CONTRASTIVE]
    assert found.slots.tolist() == [0, 5]
    assert found.targets[0] == found.targets[1]
    assert draw("similar", example, seed=1).labels[CONTRASTIVE].targets[0] != found.targets[0]


# ------------------------------------------------------------------------------------------------- one text, long text


def test_next_token_predicts_the_whole_text():
    row = draw("next-token", text(4))
    assert row.ids.tolist() == [1, 2, 10, 11, 12, 13]
    assert row.labels[LANGUAGE_MODEL].targets.tolist() == [10, 11, 12, 13, 2]
    assert row.labels[LANGUAGE_MODEL].slots.tolist() == [1, 2, 3, 4, 5]
    assert row.time.tolist() == [0, 1, 2, 3, 4, 5]
    tight = replace(FRAME, max_source=5, max_target=2)
    assert draw("next-token", text(9), frame=tight).ids.tolist() == [1, 2, 10, 11, 12]
    assert draw("next-token", text(9), frame=replace(tight, truncate="head")).ids.tolist() == [1, 2, 16, 17, 18]


def test_a_window_ends_what_is_read():
    row = windowed(draw("next-token", text(4)), 2)
    assert row.until.tolist() == [2, 3, 4, 5, 6, 7]
    pseudo = draw("pseudo", Example(np.array([10]), np.array([20, 21])))
    assert windowed(pseudo, 5).until.tolist() == [5, 5, 5, 7, 9, 11, 2, 4, 6]


def test_the_suffix_of_a_document():
    sizes = set()
    for seed in range(200):
        row = draw("infilling", text(20), replace(PLAIN, span="suffix"), seed=seed)
        blank = int(np.flatnonzero(row.ids == FRAME.mask)[0])
        assert row.ids.tolist() == [1, *range(10, 9 + blank), 3, 2, 1, *range(9 + blank, 30)]
        assert len(row) == row_length("infilling", np.array([20]), np.array([0]), FRAME, Corruption(span="suffix"))[0]
        sizes.add(21 - blank)
    assert sizes == set(range(10, 21))
    short = draw("infilling", text(20), replace(PLAIN, span="suffix", target=1))
    assert short.ids.tolist()[:3] == [1, 3, 2]


def test_whole_sentences_are_filled_in():
    passage = Passage((np.arange(10, 14), np.arange(14, 16), np.arange(16, 20)), None, 0)
    example, _ = PAIRINGS["none"](sentence_units(passage), passage, FRAME, np.random.default_rng(0))
    seen = set()
    for seed in range(60):
        row = draw("infilling", example, replace(PLAIN, span="token", units="given"), seed=seed)
        seen.add(tuple(row.labels[LANGUAGE_MODEL].targets.tolist()))
    assert seen == {(10, 11, 12, 13, 2), (14, 15, 2), (16, 17, 18, 19, 2)}
