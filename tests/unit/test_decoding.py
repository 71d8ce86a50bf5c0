"""The cached step against one full pass, for every way of reading and every kind of model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from tiny_writer import FRAME, WORDS, sentences, tiny_encoder

from unilmctl.decoding import Decoder, Written, cache_format, pack, settle
from unilmctl.errors import UsageError
from unilmctl.model import Encoder
from unilmctl.objectives import Corruption, build
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, pad

CLEAN = Corruption(target=0.0, random=0.0, keep=0.0)
MODERN: dict[str, Any] = {
    **{"rotary_base": 160.0, "global_every": 2, "window": 3, "segments": 0},
    **{"prenorm": True, "gated": True, "linear_bias": False, "norm_bias": False},
}
MODELS: list[dict[str, Any]] = [
    {},
    {"relative_buckets": 8, "relative_distance": 12},
    {"segments": 0},
    {"embedding": 8, "family": "electra"},
    {"embedding": 8, "family": "albert", "layer_groups": 1},
    {"family": "ernie", "tasks": 2},
    {"activation": "relu"},
    {"position": "interleaved", "embedding": 8},
    {"position": "rotary", **MODERN},
    {"position": "relative", "relative_distance": 5},
]
TOKENS = strategies.integers(5, len(WORDS) - 1)
WAYS = [("pseudo", "target"), ("causal", "target"), ("causal", "source")]


def full_pass(encoder: Encoder, objective: str, frame: Frame, source: list[int], target: list[int]) -> torch.Tensor:
    """Logits [target + 1, V] at every predicting slot, from one row without any cache."""
    example = Example(np.array(source), np.array(target, dtype=np.int64))
    row = build(objective, CLEAN)(example, frame, np.random.default_rng(0))
    batch = pad([row], pad_id=frame.pad)
    with torch.no_grad():
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots)
        return encoder.logits(hidden[0, torch.from_numpy(row.labels[LANGUAGE_MODEL].slots)])


def cached(decoder: Decoder, sources: list[list[int]], targets: list[list[int]]) -> torch.Tensor:
    """Logits [N, target + 1, V], one step after the other."""
    logits, state = decoder.start([np.array(source) for source in sources])
    found = [logits]
    for tokens in torch.tensor(targets).T:
        logits, state = decoder.step(tokens, state)
        found.append(logits)
    return torch.stack(found, 1)


@pytest.mark.parametrize("changes", MODELS, ids=str)
@pytest.mark.parametrize(("objective", "separator_in"), WAYS)
def test_every_step_equals_a_full_pass(changes: dict[str, Any], objective: str, separator_in: Any) -> None:
    encoder = tiny_encoder(**changes)
    frame = replace(FRAME, separator_in=separator_in, target_segment=0 if changes.get("segments") == 0 else 1)
    decoder = Decoder(encoder, frame, "mask" if objective == "pseudo" else "next")
    sources = sentences(5)
    targets = [source[:1] * 2 + [7, 8, 9, 5] for source in sources]
    found = cached(decoder, sources, targets)
    for place, (source, target) in enumerate(zip(sources, targets, strict=True)):
        torch.testing.assert_close(
            found[place], full_pass(encoder, objective, frame, source, target), rtol=0, atol=2e-5
        )


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_beams_share_their_source_and_follow_their_rows(reading: Any) -> None:
    decoder = Decoder(tiny_encoder(), FRAME, reading)
    sources = [np.array(source) for source in sentences(3)]
    _, state = decoder.start(sources)
    state = state.reordered(torch.tensor([0, 0, 1, 1, 2, 2]))
    _, state = decoder.step(torch.tensor([5, 6, 7, 8, 9, 10]), state)
    state = state.reordered(torch.tensor([1, 0, 5, 5]), torch.tensor([0, 2]))
    logits, state = decoder.step(torch.tensor([11, 12, 13, 14]), state)
    assert state.cache.sentences == 2
    for row, (source, target) in enumerate([(0, [6, 11]), (0, [5, 12]), (2, [10, 13]), (2, [10, 14])]):
        alone = cached(decoder, [sources[source].tolist()], [target])[0, -1]
        torch.testing.assert_close(logits[row], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_a_column_for_each_token_that_some_beam_still_reads(reading: Any) -> None:
    decoder = Decoder(tiny_encoder(), FRAME, reading)
    _, state = decoder.start([np.array([5, 6])])
    source = int(state.cache.seen.sum())
    assert source == (4 if reading == "mask" else 4)  # [CLS] 5 6 [SEP]
    state = state.reordered(torch.tensor([0, 0, 0]))
    _, state = decoder.step(torch.tensor([7, 8, 9]), state)
    assert int(state.cache.seen.any(1).sum()) == source + 3
    state = state.reordered(torch.tensor([1, 1, 1]))  # only the second beam's token is read from here on
    assert int(state.cache.seen.any(1).sum()) == source + 1
    _, state = decoder.step(torch.tensor([7, 8, 9]), state)
    assert int(state.cache.seen.any(1).sum()) == source + 4
    used = state.cache.seen.any(1)[0].nonzero()[:, 0]
    assert int(used.max()) == source + 3  # freed columns were taken again


@given(data=strategies.data())
@settings(max_examples=40, deadline=None)
def test_sentences_come_and_go_without_touching_the_others(data: strategies.DataObject) -> None:
    """Any history of joining, leaving, parting and merging gives the logits of each sentence decoded alone."""
    reading = data.draw(strategies.sampled_from(["mask", "next"]))
    changes = data.draw(strategies.sampled_from([{}, MODELS[1], *MODELS[-3:]]))
    frame = replace(FRAME, target_segment=0 if changes.get("segments") == 0 else 1)
    decoder = Decoder(tiny_encoder(**changes), frame, reading)
    beams = data.draw(strategies.integers(1, 3))
    written: list[tuple[list[int], list[list[int]]]] = []  # of each sentence its source, and its beams' tokens
    state: Written | None = None
    for _ in range(data.draw(strategies.integers(1, 6))):
        if not written or data.draw(strategies.booleans()):
            new = data.draw(strategies.lists(strategies.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=3))
            _, arrived = decoder.start([np.array(source) for source in new])
            arrived = arrived.reordered(torch.arange(len(new)).repeat_interleave(beams))
            state = arrived if state is None or not written else state.joined(arrived)
            written += [(source, [[] for _ in range(beams)]) for source in new]
        assert state is not None
        count = len(written)
        stay = data.draw(strategies.permutations(range(count)))[: data.draw(strategies.integers(1, count))]
        parents = [data.draw(strategies.integers(0, beams - 1)) for _ in range(len(stay) * beams)]
        tokens = [data.draw(TOKENS) for _ in parents]
        rows = [stay[place // beams] * beams + parent for place, parent in enumerate(parents)]
        state = state.reordered(torch.tensor(rows), torch.tensor(stay))
        logits, state = decoder.step(torch.tensor(tokens), state)
        histories = [[*written[row // beams][1][row % beams], token] for row, token in zip(rows, tokens, strict=True)]
        written = [(written[one][0], histories[k * beams : (k + 1) * beams]) for k, one in enumerate(stay)]
        for row, history in enumerate(histories):
            alone = cached(decoder, [written[row // beams][0]], [history])[0, -1]
            torch.testing.assert_close(logits[row], alone, rtol=0, atol=1e-4)


def test_attention_is_that_of_the_predicting_slot_on_its_source() -> None:
    decoder = Decoder(tiny_encoder(), FRAME, "mask", attention=True)
    _, state = decoder.start([np.array([5, 6]), np.array([7, 8, 9, 10, 11])])
    assert state.attention is not None
    assert state.attention.shape == (2, 7)
    assert (state.attention[0, 4:] == 0).all()
    assert (state.attention.sum(1) < 1).all()  # the rest goes to the [MASK] itself
    assert (state.attention[1] > 0).all()


def test_sources_are_cut_to_the_frame() -> None:
    encoder, frame = tiny_encoder(), replace(FRAME, max_source=6)
    long, short = list(range(5, 20)), list(range(5, 9))
    for reading, kept in (("mask", short), ("next", [*short, 9])):
        decoder = Decoder(encoder, frame, reading)  # type: ignore[arg-type]
        first, _ = decoder.start([np.array(long)])
        expected, _ = decoder.start([np.array(kept)])
        torch.testing.assert_close(first, expected, rtol=0, atol=0)


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_packed_weights_compute_the_same(changes: dict[str, Any]) -> None:
    frame = replace(FRAME, target_segment=0 if changes.get("segments") == 0 else 1)
    sources, targets = sentences(4), [[7, 8, 9]] * 4
    plain = cached(Decoder(tiny_encoder(**changes), frame, "mask"), sources, targets)
    packed = pack(tiny_encoder(**changes))
    found = cached(Decoder(packed, frame, "mask"), sources, targets)
    assert (found[..., len(WORDS) :] == float("-inf")).all()
    torch.testing.assert_close(found[..., : len(WORDS)], plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, *MODELS[-3:]], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_smaller_formats_pack_too(dtype: str, changes: dict[str, Any]) -> None:
    sources, frame = sentences(4), replace(FRAME, target_segment=0 if changes.get("segments") == 0 else 1)
    plain = cached(Decoder(tiny_encoder(**changes), frame, "mask"), sources, [[7]] * 4)
    decoder = Decoder(pack(tiny_encoder(**changes), dtype), frame, "mask", memory=cache_format(dtype))
    found = cached(decoder, sources, [[7]] * 4)[..., : len(WORDS)]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, rtol=0.1, atol=0.25)


@pytest.mark.parametrize("changes", [{}, *MODELS[-3:]], ids=str)
@pytest.mark.parametrize("reading", ["mask", "next"])
def test_float32_does_not_depend_on_the_company(reading: Any, changes: dict[str, Any]) -> None:
    """To the last bit: whatever else is decoded at the same time, and however far it is padded."""
    frame = replace(FRAME, max_source=240, target_segment=0 if changes.get("segments") == 0 else 1)
    decoder = Decoder(pack(tiny_encoder(**{"hidden": 64, "positions": 256, **changes})), frame, reading)
    long = sentences(3, seed=8, longest=230)
    source = sentences(1, seed=4)[0]
    alone = cached(decoder, [source], [[7, 8, 9, 10]])[0]
    together = cached(decoder, [*long, source], [[7, 8, 9, 10]] * 4)[-1]
    assert torch.equal(alone, together)


def test_auto_is_a_format_of_this_machine() -> None:
    assert settle("auto", 64) == "float32"
    assert settle("auto", 768) in ("float32", "bfloat16", "int8")
    assert settle("auto", 64, device="cuda") == "bfloat16"
    assert settle("int8", 64) == "int8"


def test_int8_is_refused_where_there_are_no_kernels() -> None:
    with pytest.raises(UsageError, match="^cuda has no kernels for int8$"):
        settle("int8", 768, device="cuda")
