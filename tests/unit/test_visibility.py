"""The rule: its cases, and what follows from it through any number of layers."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_stack import LAYERS, WIDTH, Stack, slots_of
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from unilmctl.objectives import OBJECTIVES
from unilmctl.rows import Example, Frame
from unilmctl.visibility import FOREVER, PADDING, Slots, mask_mod, readable_after, stack, visible

QUICK = settings(deadline=None, max_examples=40)
NET = Stack()


@st.composite
def any_slots(draw: st.DrawFn, size: int | None = None) -> Slots:
    """Slots [T] of no particular objective: any times, some passing, some silent, some padding, two documents."""
    count = draw(st.integers(1, 12)) if size is None else size
    times = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    lasts = draw(st.lists(st.sampled_from([0, 1, 3, FOREVER]), min_size=count, max_size=count))
    documents = draw(st.lists(st.sampled_from([0, 0, 0, 1, PADDING]), min_size=count, max_size=count))
    until = [FOREVER if last == FOREVER else time + last for time, last in zip(times, lasts, strict=True)]
    return Slots(torch.tensor(documents), torch.tensor(times), torch.tensor(until))


def states(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slots(*columns: tuple[int, int, int]) -> Slots:
    return Slots(*(torch.tensor(values) for values in zip(*columns, strict=True)))


def test_the_rule_case_by_case():
    cases = {
        "written before": ((0, 3, FOREVER), (0, 1, FOREVER), True),
        "written now": ((0, 3, FOREVER), (0, 3, FOREVER), True),
        "written later": ((0, 3, FOREVER), (0, 4, FOREVER), False),
        "no longer readable": ((0, 3, FOREVER), (0, 1, 3), False),
        "readable for the last time": ((0, 3, FOREVER), (0, 1, 4), True),
        "silent": ((0, 3, 3), (0, 3, 3), False),
        "another document": ((0, 3, FOREVER), (1, 1, FOREVER), False),
        "padding from a token": ((0, 3, FOREVER), (PADDING, 0, FOREVER), False),
        "padding from padding": ((PADDING, 0, FOREVER), (PADDING, 0, FOREVER), True),
    }
    for name, (query, key, seen) in cases.items():
        assert visible(slots(query), slots(key)).item() is seen, name


@QUICK
@given(any_slots())
def test_the_obvious_twin(given_slots: Slots):
    document, time, until = (column.tolist() for column in given_slots)
    count = len(time)
    twin = [
        [document[q] == document[k] and time[k] <= time[q] and time[q] < until[k] for k in range(count)]
        for q in range(count)
    ]
    assert visible(given_slots, given_slots).tolist() == twin


@QUICK
@given(any_slots(), st.integers(0, 6), st.integers(0, 1000))
def test_information_never_flows_to_a_smaller_time_at_any_depth(given_slots: Slots, moment: int, seed: int):
    mask, before = visible(given_slots, given_slots), states(len(given_slots.time), seed)
    late = given_slots.time >= moment
    after = torch.where(late[:, None], states(len(late), seed + 1), before)
    early = ~late
    assert torch.equal(NET(before, mask)[early], NET(after, mask)[early])


def test_the_perturbation_does_reach_later_times():
    pair = slots((0, 0, FOREVER), (0, 1, FOREVER))
    before = states(2, 0)
    after = before + torch.tensor([[1.0], [0.0]])
    assert not torch.equal(NET(before, visible(pair, pair))[1], NET(after, visible(pair, pair))[1])


@QUICK
@given(any_slots(), st.randoms(use_true_random=False), st.integers(0, 1000))
def test_permuting_columns_permutes_outputs_and_nothing_else(given_slots: Slots, random, seed: int):
    count = len(given_slots.time)
    order = torch.tensor(random.sample(range(count), count))
    inputs = states(count, seed)
    shuffled = Slots(*(column[order] for column in given_slots))
    straight = NET(inputs, visible(given_slots, given_slots))
    torch.testing.assert_close(NET(inputs[order], visible(shuffled, shuffled)), straight[order], rtol=0, atol=1e-12)


def cached_pass(inputs: torch.Tensor, row: Slots) -> torch.Tensor:
    """The states moment by moment: at each, only its own columns are computed, over a cache of readable ones."""
    outputs = torch.zeros_like(inputs)
    kept = [torch.zeros(0, WIDTH, dtype=torch.float64) for _ in range(LAYERS)]
    cache = row.select(slice(0, 0))
    for moment in sorted(set(row.time.tolist())):
        now = torch.nonzero(row.time == moment).flatten()
        fresh = Slots(*(column[now] for column in row))
        keys = stack([cache, fresh])
        mask, keep = visible(fresh, keys), readable_after(keys, moment)
        current = inputs[now]
        for layer in range(LAYERS):
            read = torch.cat([kept[layer], current])
            kept[layer] = read[keep]
            current = NET.layer(layer, current, read, mask)
        outputs[now], cache = current, Slots(*(column[keep] for column in keys))
    return outputs


@QUICK
@given(any_slots(), st.integers(0, 1000))
def test_a_cached_pass_equals_the_full_pass(given_slots: Slots, seed: int):
    real = given_slots.document != PADDING
    row = Slots(*(column[real] for column in given_slots))
    inputs = states(int(real.sum()), seed)
    full = NET(inputs, visible(row, row))
    torch.testing.assert_close(cached_pass(inputs, row), full, rtol=0, atol=1e-12)


def test_the_cache_forgets_what_nobody_can_read():
    row = slots((0, 0, FOREVER), (0, 1, 2), (0, 1, 3), (0, 1, 1), (PADDING, 0, FOREVER))
    assert readable_after(row, 1).tolist() == [True, False, True, False, False]


@QUICK
@given(st.sampled_from(sorted(OBJECTIVES)), st.integers(0, 1000))
def test_a_cached_pass_equals_the_full_pass_for_every_objective(name: str, seed: int):
    random = np.random.default_rng(seed)
    example = Example(random.integers(4, 40, 9), random.integers(4, 40, 5))
    frame = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=40)
    row = slots_of(OBJECTIVES[name](example, frame, random))
    inputs = states(len(row.time), seed)
    full = NET(inputs, visible(row, row))
    torch.testing.assert_close(cached_pass(inputs, row), full, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(st.lists(any_slots(size=7), min_size=1, max_size=3))
def test_mask_mod_is_the_same_mask(rows: list[Slots]):
    batch = Slots(*(torch.stack(columns) for columns in zip(*rows, strict=True)))
    dense = visible(batch, batch)
    made = create_mask(mask_mod(batch, batch), len(rows), None, 7, 7, device="cpu")
    assert torch.equal(made[:, 0], dense)


def test_a_block_mask_keeps_the_blocks_that_hold_something():
    time = torch.arange(256)[None]
    row = Slots(torch.zeros_like(time), time, torch.full_like(time, FOREVER))
    block = create_block_mask(mask_mod(row, row), 1, None, 256, 256, device="cpu", BLOCK_SIZE=128)
    dense = visible(row, row)[0].view(2, 128, 2, 128).permute(0, 2, 1, 3)
    assert torch.equal(block.to_dense()[0, 0].bool(), dense.any(-1).any(-1))


@QUICK
@given(any_slots(), any_slots())
def test_rows_of_a_batch_are_treated_one_by_one(first: Slots, second: Slots):
    count = min(len(first.time), len(second.time))
    first, second = first.select(slice(0, count)), second.select(slice(0, count))
    batch = Slots(*(torch.stack(columns) for columns in zip(first, second, strict=True)))
    assert torch.equal(visible(batch, batch), torch.stack([visible(first, first), visible(second, second)]))


def test_stacked_slots_are_one_after_another():
    joined = stack([slots((0, 1, 2)), slots((3, 4, 5), (6, 7, 8))])
    assert [column.tolist() for column in joined] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
