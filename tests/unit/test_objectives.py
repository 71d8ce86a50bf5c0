"""Objectives: what stands where in each row, the rates, the limits, and slow twins for the fast code."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.objectives import (
    DECODING,
    LENGTHS,
    OBJECTIVES,
    RATES,
    SPANS,
    Corruption,
    build,
    corrupt,
    row_length,
    select,
)
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Row
from unilmctl.visibility import FOREVER

QUICK = settings(deadline=None, max_examples=50)
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=1000)
PLAIN = Corruption(random=0, keep=0)
NOTHING = np.array([], dtype=np.int64)


def example(source: int, target: int, seed: int = 0) -> Example:
    random = np.random.default_rng(seed)
    return Example(random.integers(10, 1000, source), random.integers(10, 1000, target))


def draw(name: str, given_example: Example, corruption: Corruption = PLAIN, frame: Frame = FRAME, seed: int = 0) -> Row:
    return build(name, corruption)(given_example, frame, np.random.default_rng(seed))


def labels(row: Row) -> list[tuple[int, int]]:
    found = row.labels[LANGUAGE_MODEL]
    return list(zip(found.slots.tolist(), found.targets.tolist(), strict=True))


PAIR = Example(np.array([10, 11]), np.array([20, 21]))


def test_pseudo():
    row = draw("pseudo", PAIR, replace(PLAIN, target=0))
    assert row.ids.tolist() == [1, 10, 11, 2, 20, 21, 2, 3, 3, 3]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6]
    assert row.segments.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert row.document.tolist() == [0] * 10
    assert row.time.tolist() == [0, 0, 0, 0, 2, 4, 6, 1, 3, 5]
    assert row.until.tolist() == [FOREVER] * 7 + [2, 4, 6]
    assert labels(row) == [(7, 20), (8, 21), (9, 2)]


@QUICK
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(0, 12))
def test_the_twin_of_pseudo(seed: int, source: int, target: int):
    """Position by position, as s2s-ft writes it; the random choices are read off the row."""
    given_example = example(source, target, seed)
    row = draw("pseudo", given_example, Corruption(), seed=seed)
    text = [FRAME.start, *given_example.source.tolist(), FRAME.separator]
    answers = [*given_example.target.tolist(), FRAME.separator]
    size, count = len(text), len(answers)
    assert row.ids[:size].tolist() == text
    for index, answer in enumerate(answers):
        content, mask = size + index, size + count + index
        assert row.ids[content] in {answer, row.ids[mask]}
        assert row.positions[content] == row.positions[mask] == size + index
        assert (row.time[content], row.until[content]) == (2 * index + 2, FOREVER)
        assert (row.time[mask], row.until[mask]) == (2 * index + 1, 2 * index + 2)
    assert labels(row) == [(size + count + index, answer) for index, answer in enumerate(answers)]


def test_pseudo_overwrites_the_written_target_with_what_stands_at_its_mask():
    row = draw("pseudo", example(3, 30), Corruption(target=1))
    assert row.ids[5:36].tolist() == row.ids[36:].tolist()


def test_the_rates_of_pseudo():
    given_example = example(3, 40)
    written, masks = [], []
    for seed in range(300):
        row = draw("pseudo", given_example, Corruption(), seed=seed)
        written.append(row.ids[5:46])
        masks.append(row.ids[46:])
    answers = FRAME.target(given_example.target)
    overwritten = np.mean(np.array(written) != answers) / 0.9
    assert overwritten == pytest.approx(0.5, abs=0.02)
    assert np.mean(np.array(masks) == FRAME.mask) == pytest.approx(0.8, abs=0.02)
    assert np.mean(np.array(masks) == answers) == pytest.approx(0.1, abs=0.02)


def test_masked():
    row = draw("masked", PAIR, replace(PLAIN, target=1))
    assert row.ids.tolist() == [1, 10, 11, 2, 3, 3, 3]
    assert row.positions.tolist() == list(range(7))
    assert row.segments.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert row.time.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert row.until.tolist() == [FOREVER] * 7
    assert labels(row) == [(4, 20), (5, 21), (6, 2)]


@pytest.mark.parametrize(
    ("rate", "count", "chosen"), [(0.7, 10, 7), (0.5, 3, 1), (0.0, 5, 1), (0.1, 2, 1), (1.0, 4, 4)]
)
def test_how_many_targets_are_masked(rate: float, count: int, chosen: int):
    row = draw("masked", example(2, count - 1), replace(PLAIN, target=rate))
    assert len(labels(row)) == chosen
    assert [slot for slot, token in enumerate(row.ids) if token == FRAME.mask] == [slot for slot, _ in labels(row)]


def test_every_target_is_masked_equally_often():
    given_example = example(2, 4)
    count = Counter(slot for seed in range(500) for slot, _ in labels(draw("masked", given_example, PLAIN, seed=seed)))
    assert set(count) == {4, 5, 6, 7, 8}
    assert min(count.values()) > 0.8 * max(count.values())


def test_causal_with_the_separator_in_the_target():
    row = draw("causal", PAIR)
    assert row.ids.tolist() == [1, 10, 11, 2, 20, 21]
    assert row.segments.tolist() == [0, 0, 0, 1, 1, 1]
    assert row.time.tolist() == [0, 0, 0, 1, 2, 3]
    assert labels(row) == [(3, 20), (4, 21), (5, 2)]


def test_causal_with_the_separator_in_the_source():
    row = draw("causal", PAIR, frame=replace(FRAME, separator_in="source"))
    assert row.ids.tolist() == [1, 10, 11, 2, 20, 21]
    assert row.segments.tolist() == [0, 0, 0, 0, 1, 1]
    assert row.time.tolist() == [0, 0, 0, 0, 1, 2]
    assert labels(row) == [(3, 20), (4, 21), (5, 2)]


@pytest.mark.parametrize("separator_in", ["source", "target"])
def test_causal_corrupts_what_is_read_and_never_the_start(separator_in: str):
    row = draw("causal", PAIR, replace(PLAIN, target=1), replace(FRAME, separator_in=separator_in))
    assert row.ids.tolist() == [1, 10, 11, 2, 3, 3]
    assert labels(row) == [(3, 20), (4, 21), (5, 2)]


def test_limits_count_special_tokens():
    frame = replace(FRAME, max_source=4, max_target=3)
    long = Example(np.arange(10, 20), np.arange(20, 30))
    assert draw("pseudo", long, replace(PLAIN, target=0), frame).ids.tolist() == [1, 10, 11, 2, 20, 21, 2, 3, 3, 3]
    assert draw("causal", long, PLAIN, frame).ids.tolist() == [1, 10, 11, 12, 2, 20, 21]
    assert labels(draw("causal", long, PLAIN, frame))[-1] == (6, 2)
    closed = replace(frame, separator_in="source")
    assert draw("causal", long, PLAIN, closed).ids.tolist() == [1, 10, 11, 2, 20, 21]


@pytest.mark.parametrize("name", ["pseudo", "masked", "causal"])
def test_word_drop_touches_the_source_only_and_no_special_token(name: str):
    row = draw(name, example(30, 2), Corruption(target=0, random=0, keep=0, source=1))
    assert row.ids[0] == FRAME.start
    assert row.ids[1:31].tolist() == [FRAME.mask] * 30
    assert row.ids[31] == FRAME.separator
    half = draw(name, example(400, 2), Corruption(target=0, random=0, keep=0, source=0.5))
    assert np.mean(half.ids[1:401] == FRAME.mask) == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------------------ every objective


@QUICK
@given(st.sampled_from(sorted(OBJECTIVES)), st.integers(0, 9), st.integers(0, 9), st.integers(0, 10_000))
def test_what_holds_of_every_row(name: str, source: int, target: int, seed: int):
    given_example = example(source, target, seed)
    row = draw(name, given_example, Corruption(), seed=seed)
    columns = (row.ids, row.positions, row.segments, row.document, row.time, row.until, row.shows)
    assert {len(column) for column in columns} == {len(row)}
    assert {column.dtype for column in columns} == {np.dtype(np.int64)}
    assert all(column.strides[0] > 0 for column in columns)
    found = row.labels[LANGUAGE_MODEL]
    assert len(found.slots) == len(found.targets) == len(found.answers)
    assert len(set(found.slots.tolist())) == len(found.slots)
    assert set(found.targets.tolist()) <= {*given_example.source.tolist(), *given_example.target.tolist(), 2}
    assert row.ids.min() >= 0
    assert row.ids.max() < FRAME.vocabulary
    again = draw(name, given_example, Corruption(), seed=seed)
    assert again.ids.tolist() == row.ids.tolist()
    assert labels(again) == labels(row)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_something_is_predicted_in_every_row_with_text(name: str):
    for seed in range(50):
        assert labels(draw(name, example(3, 2, seed), Corruption(), seed=seed))
        assert labels(draw(name, Example(np.array([9]), NOTHING), Corruption(), seed=seed))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_narrow_integers_of_a_store_are_enough(name: str):
    wide = example(6, 4)
    narrow = Example(wide.source.astype(np.uint16), wide.target.astype(np.uint16))
    assert draw(name, narrow).ids.tolist() == draw(name, wide).ids.tolist()


EXACT = sorted(set(OBJECTIVES) - {"partial", "permuted", "infilling"})  # the others draw their length


@QUICK
@given(
    st.sampled_from(EXACT), st.integers(1, 12), st.integers(0, 12), st.sampled_from(["source", "target"]), st.booleans()
)
def test_row_length_is_the_length_of_the_row(name: str, source: int, target: int, separator_in: str, tight: bool):
    frame = replace(FRAME, separator_in=separator_in, max_source=7 if tight else 464, max_target=5 if tight else 48)
    row = draw(name, example(source, target), frame=frame)
    assert row_length(name, np.array([source]), np.array([target]), frame).tolist() == [len(row)]


def test_row_length_of_drawn_lengths_is_near():
    for name in ("partial", "permuted", "infilling"):
        mean = np.mean([len(draw(name, example(100, 0), seed=seed)) for seed in range(50)])
        assert row_length(name, np.array([100]), np.array([0]), FRAME)[0] == pytest.approx(mean, rel=0.03)


def test_row_length_takes_many_at_once():
    lengths = row_length("pseudo", np.array([3, 500]), np.array([2, 100]), FRAME)
    assert lengths.tolist() == [5 + 2 * 3, 464 + 2 * 48]


def test_the_tables_name_objectives():
    assert set(RATES) == set(OBJECTIVES)
    assert set(SPANS) < set(OBJECTIVES)
    assert DECODING == {"pseudo": "mask", "masked": "mask", "causal": "next", "next-token": "next", "similar": "next"}
    with pytest.raises(KeyError, match="pseud0"):
        build("pseud0")


# ------------------------------------------------------------------------------------------------ rows of pre-training


@pytest.mark.parametrize("name", ["bidirectional", "left-to-right", "right-to-left"])
def test_cloze_never_masks_special_tokens(name: str):
    for seed in range(100):
        assert FRAME.separator not in [target for _, target in labels(draw(name, example(5, 5), seed=seed))]


def test_seq2seq_may_mask_the_end_and_both_segments():
    slots = {slot for seed in range(300) for slot, _ in labels(draw("seq2seq", example(3, 3), seed=seed))}
    assert slots == {1, 2, 3, 5, 6, 7, 8}


def test_times_of_cloze_rows():
    both = example(2, 2)
    assert draw("bidirectional", both).time.tolist() == [0] * 7
    assert draw("left-to-right", both).time.tolist() == [0, 1, 2, 3, 4, 5]
    assert draw("right-to-left", both).time.tolist() == [5, 4, 3, 2, 1, 0]
    assert draw("seq2seq", both).time.tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_partial_hides_every_answer_in_place_whatever_is_kept():
    for seed in range(50):
        row = draw("partial", example(20, 0), Corruption(target=0.5, keep=1, random=0), seed=seed)
        answers = row.labels[LANGUAGE_MODEL].answers
        assert (row.ids[:22][answers] == FRAME.mask).all()


def test_every_answer_of_partial_is_predicted_in_place_and_at_its_mask():
    row = draw("partial", example(20, 0), Corruption())
    answers = Counter(row.labels[LANGUAGE_MODEL].answers.tolist())
    assert set(answers.values()) == {2}


def test_a_slot_of_the_compensated_row_reads_each_position_once():
    row = draw("permuted-compensated", example(12, 0), replace(PLAIN, target=0.5))
    for slot in np.flatnonzero(row.until == FOREVER):
        keys = (row.time <= row.time[slot]) & (row.time[slot] < row.until)
        assert sorted(row.positions[keys].tolist()) == list(range(14))


def test_infilling_writes_each_span_from_a_start_to_an_end():
    text = example(20, 0)
    row = draw("infilling", text, replace(PLAIN, target=0.4))
    part_b = row.time > 0
    starts = np.flatnonzero(part_b & (row.ids == FRAME.start))
    blanks = np.flatnonzero(~part_b & (row.ids == FRAME.mask))
    assert sorted(row.positions[starts].tolist()) == row.positions[blanks].tolist()
    assert [row.inner[slot] for slot in starts] == [1] * len(starts)
    assert [target for _, target in labels(row)].count(FRAME.separator) == len(starts)


def test_the_span_of_infilling_in_place_is_half_of_the_text():
    starts = Counter()
    for seed in range(400):
        row = draw("infilling-in-place", example(10, 0), seed=seed)
        hidden = np.flatnonzero(row.ids == FRAME.mask)
        assert hidden.tolist() == list(range(hidden[0], hidden[0] + 5))
        starts[int(hidden[0])] += 1
    assert set(starts) == {1, 2, 3, 4, 5, 6}
    assert starts[1] / 400 == pytest.approx(0.3, abs=0.08)
    assert starts[6] / 400 == pytest.approx(0.3, abs=0.08)


def test_block_diffusion_predicts_exactly_what_is_masked():
    row = draw("block-diffusion", example(6, 9))
    noisy = (row.until < FOREVER) & (row.ids == FRAME.mask)
    assert np.flatnonzero(noisy).tolist() == [slot for slot, _ in labels(row)]
    assert row.time[row.until < FOREVER].tolist() == [1, 1, 1, 1, 3, 3, 3, 3, 5, 5]


# ---------------------------------------------------------------------------------------------- choosing and corrupting


@QUICK
@given(st.sampled_from(sorted(LENGTHS)), st.integers(1, 60), st.floats(0, 1), st.integers(0, 10_000))
def test_spans_are_disjoint_free_and_enough(span: str, count: int, rate: float, seed: int):
    random = np.random.default_rng(seed)
    free = random.random(count) < 0.8
    chosen = select(free, random, rate=rate, lengths=LENGTHS[span], units=np.arange(count))
    tokens = [token for spans in chosen for token in spans.tolist()]
    assert len(tokens) == len(set(tokens))
    assert all(free[tokens])
    assert all((np.diff(spans) == 1).all() for spans in chosen)
    goal = min(int(free.sum()), max(1, round(rate * int(free.sum()))))
    assert goal <= len(tokens) < goal + (1 if span == "token" else 20)


def test_units_are_chosen_whole():
    units = np.array([0, 1, 1, 1, 2, 3, 3, 4])
    for seed in range(50):
        spans = select(
            np.ones(8, dtype=bool), np.random.default_rng(seed), rate=0.3, lengths=LENGTHS["token"], units=units
        )
        for span in spans:
            assert span.tolist() == np.flatnonzero(units == units[span[0]]).tolist()


def test_nothing_free_chooses_nothing():
    assert (
        select(np.zeros(4, bool), np.random.default_rng(0), rate=1, lengths=LENGTHS["gram"], units=np.arange(4)) == []
    )


@pytest.mark.parametrize(
    ("span", "shares"),
    [
        ("token", {1: 1.0}),
        ("gram", {1: 0.8, 2: 0.1, 3: 0.1}),
        ("ngram", {1: 6 / 11, 2: 3 / 11, 3: 2 / 11}),
        ("block", {1: 0.6, 2: 0.08, 3: 0.08, 4: 0.08, 5: 0.08, 6: 0.08}),
    ],
)
def test_the_lengths_of_spans(span: str, shares: dict[int, float]):
    lengths = LENGTHS[span](np.random.default_rng(0), 20_000)
    count = Counter(lengths.tolist())
    assert set(count) == set(shares)
    for length, share in shares.items():
        assert count[length] / 20_000 == pytest.approx(share, abs=0.015)


def test_geometric_and_poisson_lengths():
    random = np.random.default_rng(0)
    geometric = LENGTHS["geometric"](random, 20_000)
    assert (geometric.min(), geometric.max()) == (1, 10)
    assert geometric.mean() == pytest.approx(3.8, abs=0.05)  # SpanBERT's figure: Geo(0.2) given that it is at most ten
    assert LENGTHS["poisson"](random, 20_000).min() == 1
    assert LENGTHS["ngram-5"](random, 20_000).max() == 5


def test_corruption_is_80_10_10():
    tokens = np.full(20_000, 500)
    corrupted = corrupt(tokens, FRAME, np.random.default_rng(0), Corruption())
    assert np.mean(corrupted == FRAME.mask) == pytest.approx(0.8, abs=0.01)
    assert np.mean(corrupted == 500) == pytest.approx(0.1, abs=0.01)
    rest = corrupted[(corrupted != FRAME.mask) & (corrupted != 500)]
    assert rest.min() < 20
    assert rest.max() > 980
