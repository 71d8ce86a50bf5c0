"""Rows moment by moment: the logits of a full pass over the row, whatever was chosen, and only what is asked."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from tiny_writer import FRAME, tiny_encoder

from unilmctl.decoding import Moments, Plan
from unilmctl.objectives import GAP_ROWS, gap_row, gaps
from unilmctl.rows import LANGUAGE_MODEL, Ints, Row, pad

KINDS: list[dict[str, Any]] = [{}, {"relative_buckets": 8, "relative_distance": 12}, {"position": "rotary"}]


def text_with_gaps(random: np.random.Generator) -> Ints:
    """[CLS] letters [SEP] with one to four places hidden."""
    text = random.integers(5, FRAME.vocabulary, random.integers(3, 10))
    text[random.choice(len(text), min(len(text), random.integers(1, 5)), replace=False)] = FRAME.mask
    return np.concatenate(([FRAME.start], text, [FRAME.separator])).astype(np.int64)


def shared_out(places: Ints, random: np.random.Generator) -> list[Ints]:
    """The places in an order, some of them at once."""
    places = random.permutation(places)
    return [np.sort(part) for part in np.split(places, np.flatnonzero(random.random(len(places) - 1) < 0.6) + 1)]


def plain(encoder: Any, row: Row, written: dict[int, int], slot: int) -> torch.Tensor:
    """The logits at a slot, read in a full pass over a row in which these answers are known."""
    labels = row.labels[LANGUAGE_MODEL]
    ids = row.ids.copy()
    for answer, token in written.items():
        asked = labels.slots[labels.answers == answer]
        ids[(row.shows == answer) & (row.time > row.time[asked].min())] = token
    batch = pad([Row(**{**vars(row), "ids": ids})], pad_id=FRAME.pad)
    with torch.no_grad():
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots, inner=batch.inner)
        return encoder.logits(hidden[0, slot])  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", GAP_ROWS)
@pytest.mark.parametrize("changes", KINDS, ids=str)
@settings(max_examples=3, deadline=None)
@given(seed=strategies.integers(0, 99))
def test_logits_are_those_of_full_passes_whatever_is_chosen(name: str, changes: dict[str, Any], seed: int) -> None:
    random, encoder = np.random.default_rng(seed), tiny_encoder(**changes)
    rows = []
    for _ in range(3):
        text = text_with_gaps(random)
        rows.append(gap_row(name, text, shared_out(np.concatenate(gaps(text, FRAME)), random), FRAME))
    moments, plans = Moments(encoder, FRAME.vocabulary, FRAME.pad), [Plan.of(row) for row in rows]
    logits, state = moments.start(plans[:2])
    logits, state = logits[[0, 0, 1, 1]], state.reordered(torch.tensor([0, 0, 1, 1]))
    other, late = moments.start(plans[2:])  # one that joins the others
    logits, state = torch.cat((logits, other[[0, 0]])), state.joined(late.reordered(torch.tensor([0, 0])))
    pasts: list[dict[int, int]] = [{} for _ in range(6)]
    for number in range(max(plan.size for plan in plans)):
        for line, past in enumerate(pasts):
            plan = plans[line // 2]
            if number < plan.size:
                label = plan.row.labels[LANGUAGE_MODEL]
                expected = plain(encoder, plan.row, past, int(label.slots[plan.order[number]]))
                torch.testing.assert_close(logits[line, :-1], expected, atol=1e-5, rtol=1e-5)
                assert logits[line, -1] == -torch.inf
            else:
                assert torch.isfinite(logits[line]).tolist() == [False] * FRAME.vocabulary + [True]
        tokens = random.integers(5, FRAME.vocabulary, 6)
        for line, past in enumerate(pasts):
            if number < plans[line // 2].size:
                past[int(plans[line // 2].row.labels[LANGUAGE_MODEL].answers[plans[line // 2].order[number]])] = int(
                    tokens[line]
                )
        origins = np.array([2 * (line // 2) + random.integers(2) for line in range(6)])
        pasts = [dict(pasts[origin]) for origin in origins]
        logits, state = moments.step(torch.from_numpy(tokens[origins]), state.reordered(torch.from_numpy(origins)))
