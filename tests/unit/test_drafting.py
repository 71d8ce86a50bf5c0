"""Drafts: the same logits as one token at a time, whatever is chosen, in fewer passes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from tiny_writer import FRAME, WORDS, sentences, tiny_encoder, tiny_generator

from unilmctl.decoding import Decoder, Drafting, Written
from unilmctl.decoding.drafting import ROOM, Drafted
from unilmctl.decoding.followers import Followers
from unilmctl.errors import UsageError
from unilmctl.generation import GenerateOptions, open_model
from unilmctl.generation.generator import frame_of, reading_of
from unilmctl.search import Hypothesis, Rules, greedy

GOLDEN = Path(__file__).parents[1] / "golden" / "model-0.1"
WAYS = [("mask", "target"), ("next", "target"), ("next", "source")]
TIGHT = replace(FRAME, max_source=32, max_target=16)
"""Source and target may take all 48 positions of the tiny model."""


def arrays(count: int, **options: Any) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    return [np.array(source) for source in sentences(count, **options)]


def both(decoder: Decoder, drafts: int) -> tuple[Decoder, Drafting]:
    return decoder, Drafting(decoder, drafts)


class Wrong(Followers):
    """Drafts that are seldom right, of lengths that change."""

    def draft(self, tokens: Any, count: int) -> list[int]:
        return [5 + (sum(tokens) + place) % 20 for place in range(sum(tokens) % (count + 1))]


@pytest.mark.parametrize(("reading", "separator_in"), WAYS)
@pytest.mark.parametrize("changes", [{}, {"relative_buckets": 8, "relative_distance": 12}], ids=str)
@pytest.mark.parametrize("wrong", [False, True])
@settings(max_examples=8, deadline=None)
@given(seed=strategies.integers(0, 99), count=strategies.integers(1, 3), drafts=strategies.integers(1, 5))
def test_logits_are_those_of_one_token_at_a_time(
    changes: dict[str, Any], reading: Any, separator_in: Any, wrong: bool, seed: int, count: int, drafts: int
) -> None:
    frame = replace(TIGHT, separator_in=separator_in)
    plain, drafting = both(Decoder(tiny_encoder(**changes), frame, reading), drafts)
    if wrong:
        drafting._followers = Wrong()
    sources, random = arrays(count, seed=seed, longest=34), np.random.default_rng(seed)
    expected, before = plain.start(sources)
    found, after = drafting.start(sources)
    for _ in range(frame.max_target - 1):
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
        likely = torch.from_numpy(random.random(count) < 0.7)
        tokens = torch.where(likely, expected.argmax(-1), torch.from_numpy(random.integers(5, len(WORDS), count)))
        expected, before = plain.step(tokens, before)
        found, after = drafting.step(tokens, after)


@pytest.mark.parametrize(("reading", "separator_in"), WAYS)
def test_greedy_writes_the_same_in_fewer_passes(reading: Any, separator_in: Any) -> None:
    decoder = Decoder(tiny_encoder(), replace(FRAME, separator_in=separator_in), reading)
    rules = Rules(end=3, max_length=16, min_length=12, forbid=(0, 2, 4))
    drafting = Drafting(decoder, 3)
    steps = 0
    for source in arrays(6) * 2:
        expected = written(decoder, [source], rules)
        assert ids(written(drafting, [source], rules)) == ids(expected)
        steps += len(expected[0][0].token_scores)
    assert drafting.passes < 0.8 * steps


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_rules_hold(reading: Any) -> None:
    decoder, drafting = both(Decoder(tiny_encoder(), FRAME, reading), 3)
    rules = Rules(end=3, max_length=14, min_length=6, no_repeat_ngram=2, forbid=(0, 2, 4, 7), repetition_penalty=1.3)
    for source in arrays(8):
        assert ids(written(drafting, [source], rules)) == ids(written(decoder, [source], rules))


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_sentences_come_and_go(reading: Any) -> None:
    decoder, drafting = both(Decoder(tiny_encoder(), FRAME, reading), 2)
    first, second = arrays(2), arrays(3, seed=5)[2:]
    tokens, more = torch.tensor([7, 8]), torch.tensor([9, 10, 11])
    found = []
    for reader in (decoder, drafting):
        state: Any = reader.step(tokens, reader.start(first)[1])[1]
        state = state.joined(reader.start(second)[1])
        logits, state = reader.step(more, state)  # type: ignore[arg-type]
        state = state.reordered(torch.tensor([2, 1]), torch.tensor([2, 1]))
        found.append((logits, reader.step(logits[[2, 1]].argmax(-1), state)[0]))  # type: ignore[arg-type]
    torch.testing.assert_close(found[1], found[0], atol=2e-4, rtol=1e-4)


def test_where_sentences_fill_a_pass_nothing_is_drafted() -> None:
    decoder, drafting = both(Decoder(tiny_encoder(), FRAME, "next"), 3)
    sources = arrays(ROOM)
    state, before = drafting.start(sources)[1], decoder.start(sources)[1]
    for token in range(5, 11):
        tokens = torch.full((ROOM,), token)
        found, state = drafting.step(tokens, state)
        expected, before = decoder.step(tokens, before)
        assert torch.equal(found, expected)
    assert drafting.passes == 7


def test_the_released_model_writes_the_same() -> None:
    encoder, card, tokenizer = open_model(GOLDEN)
    roles = tokenizer.roles
    decoder = Decoder(encoder.eval(), frame_of(encoder, card, roles, None), reading_of(card))
    rules = Rules(end=roles.separator, max_length=decoder.frame.max_target, forbid=(roles.pad, roles.start, roles.mask))
    drafting = Drafting(decoder, 2)
    for source in tokenizer.encode_batch(["a b c", "d e f g", "en 17", "b b b", "a"]):
        sources = [np.array(source)]
        assert ids(written(drafting, sources, rules)) == ids(written(decoder, sources, rules))


@pytest.mark.parametrize("objective", ["pseudo", "causal"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10000])
def test_a_generator_with_drafts_writes_the_same(tmp_path: Path, objective: str, batch_tokens: int) -> None:
    sources = sentences(7)
    prefixes: list[list[int]] = [[], [7, 8], *([[]] * 5)]
    wished: dict[str, Any] = {"search": "greedy", "objective": objective, "dtype": "float32"}
    plain = tiny_generator(tmp_path, **wished)
    drafting = tiny_generator(tmp_path, drafts=3, batch_tokens=batch_tokens, **wished)
    expected = plain.generate(sources, prefixes=prefixes)
    found = drafting.generate(sources, prefixes=prefixes)
    assert ids(found) == ids(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[0].token_scores == pytest.approx(theirs[0].token_scores, abs=1e-4)
    assert drafting.drafting is not None
    assert drafting.drafting.passes > 0


def test_drafts_are_for_greedy_search() -> None:
    with pytest.raises(UsageError) as refused:
        GenerateOptions(search="beam", drafts=2).refuse_strangers(["drafts"])
    assert (str(refused.value), refused.value.hint) == (
        "--drafts has no meaning for beam search",
        "--search greedy",
    )
    with pytest.raises(UsageError, match="drafts is -1; it must be at least 0"):
        GenerateOptions(search="greedy", drafts=-1)


def test_what_followed_last_follows_again() -> None:
    followers = Followers()
    followers.learn([1, 2, 3, 4, 5])
    assert followers.draft([9, 2, 3], 5) == [4, 5]
    assert followers.draft([3], 5) == []
    followers.learn([2, 3, 6])
    assert followers.draft([9, 2, 3], 1) == [6]
    assert followers.draft([1, 2, 3], 1) == [4], "a longer context decides"


def test_only_what_is_new_is_learnt() -> None:
    followers = Followers()
    followers.learn([1, 2, 3, 4], 3)
    assert followers.draft([1, 2], 1) == []
    assert followers.draft([2, 3], 1) == [4]


@given(tokens=strategies.lists(strategies.integers(0, 9), max_size=60))
def test_followers_forget_the_oldest(tokens: list[int]) -> None:
    followers = Followers(limit=6)
    followers.learn(tokens)
    assert len(followers._next) <= 6
    if len(tokens) >= 3:
        assert followers.draft(tokens[:-1], 1) == tokens[-1:]


def written(reader: Decoder | Drafting, sources: list[Any], rules: Rules) -> list[list[Hypothesis]]:
    logits, state = reader.start(sources)
    assert isinstance(state, Written | Drafted)
    return greedy(logits, state, reader.step, rules)  # type: ignore[arg-type, misc]


def ids(found: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[hypothesis.ids for hypothesis in hypotheses] for hypotheses in found]
