"""Attention in parts: rows that documents share are divided where nobody sees across, and nothing else changes."""

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_work import MODELS, OBJECTIVES, apart, definition, gradients, rows
from tiny_training import FRAME, tiny_encoder
from torch import Tensor

from unilmctl.model import division, kernels, layers
from unilmctl.model.division import Parts, among, parts_of
from unilmctl.objectives import build
from unilmctl.rows import Batch, Example, pack, pad
from unilmctl.visibility import FOREVER, PADDING, Slots, visible

DIVIDED: list[dict[str, Any]] = [MODELS[0], MODELS[1], MODELS[4]]


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rows are worth dividing."""
    monkeypatch.setattr(division, "MULTIPLE", 2)
    monkeypatch.setattr(division, "EACH", 3)
    monkeypatch.setattr(kernels, "BLOCK", 1)


def shared(objective: str) -> Batch:
    """Rows of three documents and of two, with padding behind the second."""
    made = rows(objective)
    return pad([pack(made[:3]), pack(made[3:])], pad_id=0)


def parts_in(batch: Batch) -> Parts:
    return parts_of(visible(batch.slots, batch.slots), batch.slots.document)


def check(seen: Tensor, document: Tensor, parts: Parts) -> None:
    """Every query of every row is in one part, with all that it sees; what is padding sees at least itself."""
    covered, kept = torch.zeros_like(document), torch.zeros_like(seen)
    for part in parts:
        covered[part.rows, part.asked] += 1
        kept[part.rows, part.asked, part.seen] = True
    real = document != PADDING
    assert bool((covered == 1).all())
    assert bool(kept[(seen & real[:, :, None])].all())
    assert bool(kept.diagonal(dim1=1, dim2=2)[~real].all())


@st.composite
def packed_slots(draw: st.DrawFn) -> Slots:
    """Rows of documents with any times; each token sees itself, some are soon unreadable, some are padding."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
        each = {"min_size": sum(sizes), "max_size": sum(sizes)}
        time = np.array(draw(st.lists(st.integers(0, 9), **each)))
        until = time + np.array(draw(st.lists(st.sampled_from([1, 2, FOREVER - 9]), **each)))
        document = np.repeat(np.arange(len(sizes)), sizes)
        document[draw(st.lists(st.sampled_from([False] * 9 + [True]), **each))] = PADDING
        made.append((document, time, until))
    longest = max(len(document) for document, _, _ in made) + draw(st.integers(0, 3))

    def padded(part: int, filler: int) -> Tensor:
        return torch.tensor(
            np.stack([np.pad(m[part], (0, longest - len(m[part])), constant_values=filler) for m in made])
        )

    return Slots(padded(0, PADDING), padded(1, 0), padded(2, FOREVER))


@given(packed_slots(), st.sampled_from([1, 10, 100]))
@settings(max_examples=60, deadline=None)
def test_a_part_has_all_that_its_queries_see(slots: Slots, each: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "MULTIPLE", 4)
        patch.setattr(division, "EACH", each)
        patch.setattr(division, "WORTH", each)
        parts, seen = parts_of(visible(slots, slots), slots.document), visible(slots, slots)
    if parts:
        check(seen, slots.document, parts)
    if any(len(set(row.tolist()) - {PADDING}) > 1 for row in slots.document):
        assert [part.rows.start for part in parts] == sorted(part.rows.start for part in parts)
        assert {part.rows.start for part in parts} == set(range(len(seen)))


@pytest.mark.parametrize("each", [1, 40, 10**4])
def test_of_all_divisions_the_cheapest(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "MULTIPLE", 6)
    monkeypatch.setattr(division, "EACH", each)
    row = pack(rows("causal")[:3])
    batch = pad([row], pad_id=0)
    seen, ends = visible(batch.slots, batch.slots)[0], np.cumsum(np.bincount(row.document)).tolist()
    places = sorted({*ends[:-1], *range(6, len(row), 6)})

    def cost(asked: slice) -> int:
        keys = seen[asked].any(0).nonzero()
        return each + (asked.stop - asked.start) * (int(keys[-1]) - int(keys[0]) + 1)

    ways = [[0, *inner, len(row)] for n in range(len(places) + 1) for inner in combinations(places, n)]
    cheapest = min(sum(cost(slice(*part)) for part in pairwise(way)) for way in ways)
    parts = parts_in(batch)
    assert sum(each + (part.asked.stop - part.asked.start) * (part.seen.stop - part.seen.start) for part in parts) == (
        cheapest
    )
    assert (len(parts) == 1) == (each == 10**4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_documents_are_parts_and_what_is_asked_of_them(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "MULTIPLE", 1000)
    monkeypatch.setattr(division, "EACH", 1)
    batch, made = shared(objective), rows(objective)
    parts, sizes = parts_in(batch), [len(row) for row in made]
    starts = [0, sizes[0], sum(sizes[:2]), 0, sizes[3]]
    spans = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    numbers = [slice(0, 1)] * 3 + [slice(1, 2)] * 2
    assert [part for part in parts if part.asked.start < sum(sizes[3:]) or part.rows.start == 0] == [
        (row, span, span) for row, span in zip(numbers, spans, strict=True)
    ]
    asked = torch.tensor([[1, starts[2], starts[2] + 1], [0, 2, batch.ids.shape[1] - 1]])
    found = [(part.asked, part.seen) for part in among(parts, asked)]
    assert found[:3] == [(slice(0, 1), spans[0]), (slice(1, 3), spans[2]), (slice(0, 2), spans[3])]
    assert among(parts, asked.flip(1)) == ()


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("switches", DIVIDED, ids=str)
def test_parts_of_packed_rows_have_the_same_gradient(
    objective: str, switches: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all tokens at once, by torch's kernel: that kernel part by part, and the one by hand head by head."""
    encoder, batch = tiny_encoder(seed=2, **switches).train(), shared(objective)
    if encoder.relative is not None:
        torch.nn.init.normal_(encoder.relative.weight, generator=torch.Generator().manual_seed(4))
    parts = parts_in(batch)
    assert sum(part.rows.start == 0 for part in parts) > 2 < sum(part.rows.start == 1 for part in parts)
    found = {}
    for longest in (0, 7, 1024):
        monkeypatch.setattr(layers, "LONG", longest)
        found[longest] = gradients(encoder, [batch], 9)
    monkeypatch.setattr(layers, "LONG", 0)
    monkeypatch.setattr("unilmctl.model.encoder.parts_of", lambda seen, document: ())
    expected = definition(encoder, batch, 9)
    for longest, gradient in found.items():
        assert apart(gradient, expected) < 1e-6, longest


@pytest.mark.usefixtures("cheap")
def test_parts_in_bfloat16_are_near_float32() -> None:
    encoder, batch = tiny_encoder().train(), shared("pseudo")
    assert apart(gradients(encoder, [batch], 9, "bfloat16"), gradients(encoder, [batch], 9)) < 0.03


@pytest.mark.usefixtures("cheap")
def test_what_packed_rows_drop_is_a_function_of_the_seed() -> None:
    encoder, batch, found = tiny_encoder(attention_dropout=0.3).train(), shared("pseudo"), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(gradients(encoder, [batch], 9))
    assert apart(found[0], found[1]) == 0
    assert apart(found[0], found[2]) > 1e-3


def test_rows_of_one_document_are_divided_all_at_one_place() -> None:
    random, frame = np.random.default_rng(3), replace(FRAME, max_source=300, max_target=90)
    made = [
        build("masked")(Example(random.integers(5, 24, s), random.integers(5, 24, 88)), frame, random)
        for s in (200, 180)
    ]
    for chosen in (made, made[:1]):
        batch = pad(chosen, pad_id=0)
        parts, tokens = parts_in(batch), batch.ids.shape[1]
        whole, rest = slice(None), slice(208, tokens)
        assert parts == ((whole, slice(0, 208), slice(0, 208)), (whole, rest, slice(0, tokens)))
        assert among(parts, torch.arange(tokens)[None].expand(len(chosen), -1)) == ()
