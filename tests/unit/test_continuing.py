"""Models of running text: a source is a beginning, read left to right, and what is written comes after it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_writer import FRAME, sentences, tiny_encoder, tiny_generator, tiny_tokenizer

from unilmctl.data.parsing import Record
from unilmctl.data.reading import BadLine
from unilmctl.decoding import Decoder
from unilmctl.errors import DataError, UsageError
from unilmctl.generation import Generator, Scorer, Tally, generate_stream
from unilmctl.generation.recurrence import scores_in_pieces
from unilmctl.model import Encoder
from unilmctl.objectives import Corruption, next_token
from unilmctl.rows import Example, pad
from unilmctl.visibility import Slots
from unilmctl.weights import ModelCard

CLEAN = Corruption(target=0.0)


def after(encoder: Encoder, text: list[int]) -> int:
    """The likeliest token after a text, by a full pass over the row that training makes of it."""
    example = Example(np.array(text, dtype=np.int64), np.zeros(0, dtype=np.int64))
    row = next_token(example, FRAME, np.random.default_rng(0), corruption=CLEAN)
    batch = pad([row], pad_id=0)
    with torch.no_grad():
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, Slots(*batch.slots))
    logits = encoder.logits(hidden[0, row.labels["lm"].slots[-1]])
    logits[[0, 2, 4]] = -torch.inf
    return int(logits.argmax())


@pytest.mark.parametrize("drafts", [0, 4])
def test_what_is_written_is_what_training_would_predict(tmp_path: Path, drafts: int) -> None:
    generator = tiny_generator(tmp_path, objective="next-token", search="greedy", drafts=drafts)
    encoder, prompts = tiny_encoder(), [[], [7], *sentences(4)]
    assert len(generator.generate(prompts)) == 6
    for prompt, (hypothesis,) in zip(prompts, generator.generate(prompts), strict=True):
        text = list(prompt)
        for token in hypothesis.ids:
            assert token == after(encoder, text)
            text.append(token)


@pytest.mark.parametrize("memory", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("buckets", [0, 8])
def test_a_beginning_is_read_the_same_whatever_follows(memory: torch.dtype, buckets: int) -> None:
    frame = replace(FRAME, separator_in="source", truncate="head")
    encoder = tiny_encoder(relative_buckets=buckets)
    decoder = Decoder(encoder, frame, "next", memory, continues=True)
    short, long = np.arange(5, 9), np.arange(5, 14)
    tables = [decoder.encode([source]).cache.tables for source in (short, long)]
    for one, other in zip(*tables, strict=True):
        torch.testing.assert_close(one[:, :, :, :6], other[:, :, :, :6])


def test_the_end_of_a_long_beginning_is_kept(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path, objective="next-token", search="greedy")
    assert generator.longest_source == 48 - 10 - 2
    prompt = sentences(1, longest=60)[0] * 60
    long, kept = generator.generate([prompt, prompt[-36:]])
    assert long[0].ids == kept[0].ids


def answers(generator: Generator, *records: Record | BadLine) -> list[int]:
    found = [answer for group in generate_stream(generator, records, Tally(), forgiving=True) for answer in group]
    return [len(answer.hypotheses) for answer in found]


def test_an_empty_line_is_gone_on_with_and_a_bad_one_is_not(tmp_path: Path) -> None:
    empty = Record("", None, [], None, "in:1")
    bad = BadLine("in:2", "broken", Record("", None, [], None, "in:2"))
    assert answers(tiny_generator(tmp_path, objective="next-token"), empty, bad) == [1, 0]
    assert answers(tiny_generator(tmp_path, objective="causal"), empty, bad) == [0, 0]


def scorer(folder: Path, memory: int | None, **changes: Any) -> Scorer:
    card = ModelCard(objective="next-token")
    return Scorer(tiny_encoder(**changes), card, tiny_tokenizer(folder), memory=memory)


@pytest.mark.parametrize("changes", [{}, {"relative_buckets": 8}, {"position": "rotary"}, {"position": "relative"}])
def test_a_piece_sees_the_one_before_it_as_the_rule_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, text = scorer(tmp_path, None, **changes), sentences(1, seed=4, longest=40)[0][:3] * 6
    row = whole.row([], text)
    (plain,) = whole.score([([], text)])
    for memory in (len(row), len(row) + 3):
        assert scores_in_pieces(whole.encoder, row, memory) == pytest.approx(plain.token_scores, abs=1e-5)
    by_rule = replace(row, until=(np.arange(len(row)) // 5 + 2) * 5)
    (expected,) = whole.score_rows([by_rule])
    (found,) = scorer(tmp_path, 5, **changes).score([([], text)])
    assert found.token_scores == pytest.approx(expected.token_scores, abs=1e-5)
    assert found.token_scores != pytest.approx(plain.token_scores, abs=1e-5)


def test_text_has_any_length_where_positions_have_no_table(tmp_path: Path) -> None:
    text = sentences(1, longest=14)[0] * 30
    (long,) = scorer(tmp_path, 16, position="rotary").score([(text, text)])
    assert len(long.token_scores) == len(text) + 1
    assert long.score < 0
    with pytest.raises(DataError, match="positions, the model has 48"):
        scorer(tmp_path, 16).score([([], text)])


def test_a_memory_is_for_running_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Scorer(tiny_encoder(), ModelCard(objective="causal"), tiny_tokenizer(tmp_path), memory=8)
    assert caught.value.message == "a memory is for models of running text, trained with next-token"
    assert caught.value.hint == "leave --memory out"
