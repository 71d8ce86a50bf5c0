"""Rows: frames, packing, padding, and the leak check with leaks that others planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_stack import Stack, run_batch, run_row, slots_of

from unilmctl.objectives import OBJECTIVES, Corruption, build, in_place_row, partial_row
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Labels, Leak, Row, leaks, pack, pad
from unilmctl.visibility import FOREVER, PADDING, visible

QUICK = settings(deadline=None, max_examples=30)
NET = Stack()
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=40)
NAMES = sorted(OBJECTIVES)


def made(name: str, seed: int, longest: int = 9) -> Row:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, longest, 2)
    example = Example(random.integers(4, 40, sizes[0]), random.integers(4, 40, sizes[1]))
    return build(name)(example, FRAME, random)


rows = st.lists(st.builds(made, st.sampled_from(NAMES), st.integers(0, 10_000)), min_size=1, max_size=4)


def test_a_frame_puts_special_tokens_around_and_cuts():
    frame = replace(FRAME, max_source=4, max_target=3)
    tokens = np.array([10, 11, 12, 13], dtype=np.uint16)
    assert frame.source(tokens).tolist() == [1, 10, 11, 2]
    assert frame.target(tokens).tolist() == [10, 11, 2]
    assert frame.source(tokens[:1]).tolist() == [1, 10, 2]
    assert frame.target(tokens[:1]).tolist() == [10, 2]
    assert frame.source(tokens).dtype == frame.target(tokens).dtype == np.int64


@QUICK
@given(rows)
def test_packing_changes_nothing(parts: list[Row]):
    alone = torch.cat([run_row(NET, row) for row in parts])
    torch.testing.assert_close(run_row(NET, pack(parts)), alone, rtol=0, atol=1e-12)


@QUICK
@given(rows)
def test_packed_labels_ask_for_the_same_at_the_same_states(parts: list[Row]):
    packed = pack(parts)
    labels = packed.labels[LANGUAGE_MODEL]
    starts = np.cumsum([0, *(len(row) for row in parts)])
    expected = [
        (int(start + slot), int(target))
        for start, row in zip(starts, parts, strict=False)
        for slot, target in zip(row.labels[LANGUAGE_MODEL].slots, row.labels[LANGUAGE_MODEL].targets, strict=True)
    ]
    assert list(zip(labels.slots.tolist(), labels.targets.tolist(), strict=True)) == expected
    assert leaks(packed) == []


def test_packing_packed_rows_keeps_all_documents_apart():
    row = made("pseudo", 1)
    packed = pack([pack([row, row]), row])
    assert packed.document.tolist() == [0] * len(row) + [1] * len(row) + [2] * len(row)


@QUICK
@given(rows, st.integers(0, 5))
def test_padding_changes_nothing(parts: list[Row], more: int):
    batch = pad(parts, pad_id=0, length=max(len(row) for row in parts) + more)
    states = run_batch(NET, batch)
    for row, padded in zip(parts, states, strict=True):
        torch.testing.assert_close(padded[: len(row)], run_row(NET, row), rtol=0, atol=1e-12)
    assert torch.isfinite(states).all()
    assert batch.tokens == sum(len(row) for row in parts)


@QUICK
@given(rows)
def test_labels_of_a_batch_are_found_in_its_flat_slots(parts: list[Row]):
    batch = pad(parts, pad_id=0)
    labels = batch.labels[LANGUAGE_MODEL]
    width = batch.ids.shape[1]
    expected = [
        (index * width + int(slot), int(target))
        for index, row in enumerate(parts)
        for slot, target in zip(row.labels[LANGUAGE_MODEL].slots, row.labels[LANGUAGE_MODEL].targets, strict=True)
    ]
    assert list(zip(labels.slots.tolist(), labels.targets.tolist(), strict=True)) == expected


def test_heads_that_only_some_rows_have():
    plain = made("masked", 0)
    pair = replace(plain, labels={**plain.labels, "pair": Labels(np.array([0]), np.array([1]), np.array([99]))})
    batch = pad([plain, pair], pad_id=0)
    assert batch.labels["pair"].slots.tolist() == [len(plain)]
    packed = pack([plain, pair, plain])
    assert packed.labels["pair"].slots.tolist() == [len(plain)]
    assert len(packed.labels[LANGUAGE_MODEL].slots) == 3 * len(plain.labels[LANGUAGE_MODEL].slots)


def beside(row: Row, *, slots: list[int], other: list[int], answers: list[int]) -> Row:
    """The row with labels of a head that reads two slots and a number."""
    aside = np.array([[slot, 7] for slot in other])
    labels = Labels(np.array(slots), np.zeros(len(slots), dtype=np.int64), np.array(answers), aside=aside)
    return replace(row, labels={**row.labels, "boundary": labels})


def test_a_second_slot_moves_with_its_row_and_numbers_stay():
    plain = made("causal", 0)
    row = beside(plain, slots=[0, 1], other=[2, 3], answers=[-1, -1])
    size = len(row)
    packed = pack([plain, row, row]).labels["boundary"]
    assert packed.slots.tolist() == [size, size + 1, 2 * size, 2 * size + 1]
    assert packed.aside.tolist() == [[size + 2, 7], [size + 3, 7], [2 * size + 2, 7], [2 * size + 3, 7]]
    assert packed.answers.tolist() == [-1] * 4
    batch = pad([plain, row], pad_id=0, length=size + 5).labels["boundary"]
    assert batch.slots.tolist() == [size + 5, size + 6]
    assert batch.aside.tolist() == [[size + 7, 7], [size + 8, 7]]
    assert row.labels["boundary"].aside.tolist() == [[2, 7], [3, 7]]


def test_groups_are_kept_and_rows_without_one_are_in_group_0():
    first, second = made("masked", 0), made("masked", 1).in_group(2)
    counts = [len(row.labels[LANGUAGE_MODEL].slots) for row in (first, second)]
    expected = [0] * counts[0] + [2] * counts[1]
    assert pack([first, second]).labels[LANGUAGE_MODEL].group.tolist() == expected
    assert pad([first, second], pad_id=0).labels[LANGUAGE_MODEL].group.tolist() == expected
    assert pack([first, first]).labels[LANGUAGE_MODEL].group is None
    assert pad([first], pad_id=0).labels[LANGUAGE_MODEL].group is None


def test_targets_may_be_measures():
    row = made("masked", 0)
    measured = replace(row, labels={"grade": Labels(np.array([0]), np.array([2.5]), np.array([-1]))})
    assert pad([pack([measured, measured])], pad_id=0).labels["grade"].targets.tolist() == [2.5, 2.5]


def test_second_positions_are_packed_and_padded_where_a_row_has_them():
    with_inner, without = made("infilling", 3), made("masked", 3)
    assert pack([without, without]).inner is None
    assert pad([without], pad_id=0).inner is None
    packed = pack([without, with_inner])
    assert packed.inner.tolist() == [0] * len(without) + with_inner.inner.tolist()
    padded = pad([without, with_inner], pad_id=0).inner
    assert padded[0].tolist() == [0] * padded.shape[1]
    assert padded[1, : len(with_inner)].tolist() == with_inner.inner.tolist()


def test_padding_is_marked():
    row = made("causal", 2)
    batch = pad([row], pad_id=7, length=len(row) + 2)
    assert batch.ids[0, -2:].tolist() == [7, 7]
    assert batch.slots.document[0, -2:].tolist() == [PADDING, PADDING]
    assert batch.slots.until[0, -2:].tolist() == [FOREVER, FOREVER]


# ------------------------------------------------------------------------------------------------ the leak check


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_random_rows_of_every_objective_are_sound(name: str, count: int):
    for seed in range(count):
        assert leaks(made(name, seed, longest=20)) == []


def reaches(row: Row) -> np.ndarray:
    """The exact answer by brute force: which slots' values arrive at which, through any number of layers, [T, T]."""
    slots = slots_of(row)
    seen = visible(slots, slots).numpy() | np.eye(len(row), dtype=bool)
    for _ in range(len(row)):
        seen = seen | (seen @ seen)
    return seen


def shown_to_its_own_label(row: Row) -> bool:
    arrives = reaches(row)
    labels = row.labels[LANGUAGE_MODEL]
    return any(
        arrives[slot, shown] and shown != slot and row.shows[shown] == answer
        for slot, answer in zip(labels.slots, labels.answers, strict=True)
        for shown in range(len(row))
    )


@QUICK
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(-3, 3), st.data())
def test_no_leak_escapes_the_check(name: str, seed: int, shift: int, data: st.DataObject):
    """Rows with one time changed: whatever brute force finds, the check finds too."""
    row = made(name, seed, longest=6)
    slot = data.draw(st.integers(0, len(row) - 1))
    time = row.time.copy()
    time[slot] = max(0, time[slot] + shift)
    changed = replace(row, time=time)
    if shown_to_its_own_label(changed):
        assert leaks(changed)


def test_a_label_is_checked_at_its_second_slot_too():
    row = made("causal", 4)
    last = len(row) - 1
    answer = int(row.shows[last - 1])
    assert leaks(beside(row, slots=[0], other=[1], answers=[answer])) == []
    assert leaks(beside(row, slots=[0], other=[last], answers=[answer])) == [Leak("boundary", last, last - 1)]
    assert leaks(beside(row, slots=[0], other=[last], answers=[-1])) == []


def test_the_first_target_without_offset_is_found():
    """s2s-ft `target_no_offset`: times start at 0, and the first [P] reads its own answer."""
    row = made("pseudo", 5)
    planted = replace(
        row, time=np.maximum(row.time - 2, 0), until=np.where(row.until < FOREVER, row.until - 2, FOREVER)
    )
    first = int(row.labels[LANGUAGE_MODEL].slots[0])
    target = int(row.labels[LANGUAGE_MODEL].answers[0])
    assert leaks(planted) == [Leak(LANGUAGE_MODEL, first, target)]


def test_a_shifted_span_is_found():
    """MASS (supervised NMT): one token further is masked than is predicted, so the first answer stays in the text."""
    text = np.array([1, 10, 11, 12, 13, 14, 2])
    span = np.array([2, 3, 4])
    right, shifted = in_place_row(text, span, FRAME), in_place_row(text, span + 1, FRAME)
    head = slice(0, len(text))
    planted = replace(
        right,
        ids=np.concatenate((shifted.ids[head], right.ids[len(text) :])),
        shows=np.concatenate((shifted.shows[head], right.shows[len(text) :])),
    )
    assert leaks(right) == []
    assert [(leak.slot, leak.shown_at) for leak in leaks(planted)] == [(len(text), 2)]


def test_a_kept_answer_in_place_is_found():
    """UniLMv2 with the 10 % kept applied in place: every later [P] can read it."""
    text = np.array([1, 10, 11, 12, 13, 14, 2])
    row = partial_row(
        text, [np.array([4]), np.array([2])], FRAME, np.random.default_rng(0), Corruption(random=0, keep=0)
    )
    ids, shows = row.ids.copy(), row.shows.copy()
    ids[2], shows[2] = text[2], 2
    planted = replace(row, ids=ids, shows=shows)
    assert leaks(row) == []
    assert [(leak.slot, leak.shown_at) for leak in leaks(planted)] == [(len(text) + 1, 2)]


def test_a_long_source_loses_the_end_that_the_frame_names():
    tokens = np.arange(10, 30)
    tail, head = replace(FRAME, max_source=8), replace(FRAME, max_source=8, truncate="head")
    assert tail.source(tokens)[1:-1].tolist() == [10, 11, 12, 13, 14, 15]
    assert head.source(tokens)[1:-1].tolist() == [24, 25, 26, 27, 28, 29]
    assert head.cut(tokens, special=1).tolist() == [23, 24, 25, 26, 27, 28, 29]
    assert head.source(tokens[:6]).tolist() == tail.source(tokens[:6]).tolist()
    assert len(head.cut(tokens[:0], special=2)) == 0


def test_a_kept_token_is_no_leak_at_its_own_slot():
    text = Example(np.array([10, 11, 12]), np.array([], dtype=np.int64))
    row = build("bidirectional", Corruption(keep=1, random=0))(text, FRAME, np.random.default_rng(0))
    slot = row.labels[LANGUAGE_MODEL].slots
    assert (row.ids[slot] == row.labels[LANGUAGE_MODEL].targets).all()
    assert leaks(row) == []


def test_a_next_token_label_that_reads_its_target_is_found():
    row = made("causal", 4)
    labels = row.labels[LANGUAGE_MODEL]
    planted = replace(row, time=np.zeros_like(row.time))
    assert len(leaks(planted)) == len(labels.slots) - 1  # the last [SEP] is predicted and not in the row


def test_a_kept_token_does_not_hide_a_second_one_that_shows_the_same():
    text = Example(np.array([10, 11, 12]), np.array([], dtype=np.int64))
    row = build("bidirectional", Corruption(keep=1, random=0))(text, FRAME, np.random.default_rng(0))
    slot = int(row.labels[LANGUAGE_MODEL].slots[0])
    shows = row.shows.copy()
    shows[-1] = slot
    assert leaks(replace(row, shows=shows)) == [Leak(LANGUAGE_MODEL, slot, len(row) - 1)]
