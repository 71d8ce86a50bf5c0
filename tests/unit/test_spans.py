"""Gaps of unknown length: the logits of a full pass over GLM's row, the ends of gaps, and what a full gap may do."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from tiny_writer import FRAME, tiny_encoder

from unilmctl.decoding import Spans
from unilmctl.model import Encoder
from unilmctl.objectives import infilling_row
from unilmctl.rows import Ints, pad
from unilmctl.search import Rules, beam_search, greedy

LONGEST = 5
STOP, FOLLOWING, REST = FRAME.separator, FRAME.vocabulary, FRAME.vocabulary + 1
KINDS: list[dict[str, Any]] = [{}, {"relative_buckets": 8, "relative_distance": 12}, {"inner_positions": 0}]


def spans_of(**changes: Any) -> Spans:
    return Spans(tiny_encoder(**{"inner_positions": LONGEST + 3, **changes}), FRAME, LONGEST)


def text_with_gaps(random: np.random.Generator) -> Ints:
    text = random.integers(5, FRAME.vocabulary, random.integers(3, 9))
    text[random.choice(len(text), random.integers(1, 3), replace=False)] = FRAME.mask
    return np.concatenate(([FRAME.start], text, [FRAME.separator])).astype(np.int64)


def plain(encoder: Encoder, text: Ints, written: list[list[int]]) -> torch.Tensor:
    """Log-probabilities after what is written: in a full pass over the row of a text whose gaps hold it."""
    parts, spans, done, place = [], [], 0, 0
    gaps = np.flatnonzero(text == FRAME.mask).tolist()
    for number, gap in enumerate(gaps):
        parts.append(text[done:gap])
        place += len(parts[-1])
        inside = [*(written[number] if number < len(written) else []), 5]  # a last one that nobody reads
        inside = inside[:-1] if number < len(written) - 1 else inside
        parts.append(np.array(inside, dtype=np.int64))
        spans.append(np.arange(len(inside)) + place)
        place += len(inside)
        done = gap + 1
    row = infilling_row(np.concatenate([*parts, text[done:]]), spans, FRAME)
    batch, slot = pad([row], pad_id=FRAME.pad), len(text) + sum(len(one) + 1 for one in written[:-1]) + len(written[-1])
    with torch.no_grad():
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots, inner=batch.inner)
        return encoder.logits(hidden[0, slot]).log_softmax(-1)


@pytest.mark.parametrize("changes", KINDS, ids=str)
@settings(max_examples=4, deadline=None)
@given(seed=strategies.integers(0, 99))
def test_probabilities_are_those_of_full_passes_whatever_is_chosen(changes: dict[str, Any], seed: int) -> None:
    random, spans = np.random.default_rng(seed), spans_of(**changes)
    texts = [text_with_gaps(random) for _ in range(3)]
    logits, state = spans.start(texts[:2])
    logits, state = logits[[0, 0, 1, 1]], state.reordered(torch.tensor([0, 0, 1, 1]))
    other, late = spans.start(texts[2:])  # one that joins the others
    logits, state = torch.cat((logits, other[[0, 0]])), state.joined(late.reordered(torch.tensor([0, 0])))
    pasts: list[list[list[int]]] = [[[]] for _ in range(6)]
    for _ in range(LONGEST):
        tokens = random.integers(5, FRAME.vocabulary, 6)
        found = logits.log_softmax(-1)
        for line, past in enumerate(pasts):
            text = texts[line // 2]
            expected = plain(spans.encoder, text, past)
            more = len(past) < (text == FRAME.mask).sum()
            end = STOP if not more else FOLLOWING
            expected = torch.cat((expected, torch.full((2,), -torch.inf)))
            stop, expected[STOP] = float(expected[STOP]), -torch.inf
            expected[end if past[-1] else REST] = stop
            torch.testing.assert_close(found[line], expected, atol=1e-5, rtol=1e-5)
            if more and past[-1] and random.random() < 0.4:
                tokens[line] = FOLLOWING
        origins = np.array([2 * (line // 2) + random.integers(2) for line in range(6)])
        pasts = [[list(one) for one in pasts[origin]] for origin in origins]
        tokens = tokens[origins]
        for past, token in zip(pasts, tokens.tolist(), strict=True):
            if token == FOLLOWING:
                past.append([])
            else:
                past[-1].append(token)
        logits, state = spans.step(torch.from_numpy(tokens), state.reordered(torch.from_numpy(origins)))


def test_a_full_gap_ends_at_the_price_of_its_end() -> None:
    spans = spans_of()
    text = np.array([FRAME.start, 6, FRAME.mask, 7, FRAME.mask, FRAME.separator])
    _, state = spans.start([text])
    for token in range(5, 5 + LONGEST):
        logits, state = spans.step(torch.tensor([token]), state)
    found, expected = logits[0].log_softmax(-1), plain(spans.encoder, text, [[*range(5, 5 + LONGEST)]])
    assert np.flatnonzero(torch.isfinite(found)).tolist() == [FOLLOWING, REST]
    torch.testing.assert_close(found[FOLLOWING], expected[STOP], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
def test_outputs_have_an_end_for_every_gap_and_their_scores_are_their_own(beam: int) -> None:
    random, spans = np.random.default_rng(7), spans_of()
    texts = [text_with_gaps(random) for _ in range(6)]
    rules = Rules(STOP, 2 * (LONGEST + 1), forbid=(FRAME.pad, FRAME.start, FRAME.mask, REST))
    if beam == 1:
        outputs = greedy(*spans.start(texts), spans.step, rules)
    else:
        first, state = spans.start(texts)
        outputs = beam_search(first, state, spans.step, rules, beam=beam, nbest=beam)
    for text, found in zip(texts, outputs, strict=True):
        for one in found:
            assert one.ids.count(FOLLOWING) == (text == FRAME.mask).sum() - 1
            written: list[list[int]] = [[]]
            for token, score in zip([*one.ids, STOP], one.token_scores, strict=True):
                said = plain(spans.encoder, text, written)[STOP if token == FOLLOWING else token]
                assert score == pytest.approx(float(said), abs=1e-4)
                if token == FOLLOWING:
                    written.append([])
                else:
                    written[-1].append(token)
