"""The cached step against one full pass, for every way of reading and every kind of model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_writer import FRAME, WORDS, sentences, tiny_encoder

from unilmctl.decoding import Decoder, Written, pack
from unilmctl.model import Encoder
from unilmctl.objectives import Corruption, build
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, pad
from unilmctl.visibility import readable_after

CLEAN = Corruption(target=0.0, random=0.0, keep=0.0)
MODELS: list[dict[str, Any]] = [
    {},
    {"relative_buckets": 8, "relative_distance": 12},
    {"segments": 0},
    {"embedding": 8, "family": "electra"},
    {"activation": "relu"},
]
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
    assert state.cache.shared.layers[0].keys.shape[0] == 2
    for row, (source, target) in enumerate([(0, [6, 11]), (0, [5, 12]), (2, [10, 13]), (2, [10, 14])]):
        alone = cached(decoder, [sources[source].tolist()], [target])[0, -1]
        torch.testing.assert_close(logits[row], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_what_stays_in_the_cache_is_what_can_still_be_read(reading: Any) -> None:
    decoder = Decoder(tiny_encoder(), FRAME, reading)
    _, state = decoder.start([np.array([5, 6])])
    for count in range(3):
        _, state = decoder.step(torch.tensor([7]), state)
        own = state.cache.own
        assert own is not None
        now = 2 * count + 3 if reading == "mask" else count + 2
        assert readable_after(own.slots, now).all()
        assert own.slots.time.shape[1] == count + (1 if reading == "mask" else 2)


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
    torch.testing.assert_close(cached(Decoder(packed, frame, "mask"), sources, targets), plain, rtol=0, atol=2e-5)


def test_bfloat16_packs_too() -> None:
    frame, sources = FRAME, sentences(4)
    plain = cached(Decoder(tiny_encoder().bfloat16(), frame, "mask"), sources, [[7]] * 4)
    packed = cached(Decoder(pack(tiny_encoder().bfloat16()), frame, "mask"), sources, [[7]] * 4)
    torch.testing.assert_close(packed, plain, rtol=0.1, atol=0.1)


def test_the_state_is_never_changed_in_place() -> None:
    decoder = Decoder(tiny_encoder(), FRAME, "mask")
    _, start = decoder.start([np.array([5, 6])])

    def twice() -> tuple[torch.Tensor, Written]:
        return decoder.step(torch.tensor([9]), start)

    assert torch.equal(twice()[0], twice()[0])
    assert start.cache.own is None
    assert len(WORDS) == twice()[0].shape[1]
