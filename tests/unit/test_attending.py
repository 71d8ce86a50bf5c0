"""Attention to the source: alignments and the coverage penalty, against attention computed by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_writer import FRAME, model_folder, sentences, tiny_encoder, tiny_tokenizer
from torch import Tensor

from unilmctl.commands import generate
from unilmctl.decoding import Attending, Decoder, Reading
from unilmctl.errors import UsageError
from unilmctl.generation import GenerateOptions, Generator, Opened
from unilmctl.model import Encoder
from unilmctl.weights import ModelCard

OPTIONS = GenerateOptions(max_length=10, beam=3)


def one_layer(seed: int = 3) -> Encoder:
    return tiny_encoder(seed, layers=1)


def by_hand(encoder: Encoder, reading: Reading, source: list[int], written: list[int]) -> Tensor:
    """How the slot that predicts the token after `written` shares its attention among the words: one layer, one row."""
    ids = [FRAME.start, *source, *([FRAME.separator] if reading == "mask" else [])]
    target = [*written, FRAME.mask] if reading == "mask" else [FRAME.separator, *written]
    segments = [FRAME.source_segment] * len(ids) + [FRAME.target_segment] * len(target)
    row = torch.tensor([[*ids, *target]])
    hidden = encoder.embeddings(row, torch.arange(row.shape[1])[None], torch.tensor([segments]))
    query, key, _ = encoder.layers[0].attention.qkv(hidden)[0].view(row.shape[1], 3, encoder.config.heads, -1).unbind(1)
    scores = torch.einsum("hd,khd->hk", query[-1], key) / query.shape[-1] ** 0.5
    words = scores.softmax(-1).mean(0)[1 : 1 + len(source)]
    return (words / words.sum()).detach()


@pytest.mark.parametrize("reading", ["mask", "next"])
def test_shares_are_those_of_the_words_alone(reading: Reading) -> None:
    encoder, sources = one_layer(), [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
    attending = Attending.of(Decoder(encoder, FRAME, reading))
    _, state = attending.decoder.start([np.array(source) for source in sources])
    written: list[list[int]] = [[], [], []]
    for time in range(3):
        shares = attending.shares(state)
        assert shares.shape == (3, 5)
        for row, (source, before) in enumerate(zip(sources, written, strict=True)):
            expected = by_hand(encoder, reading, source, before)
            torch.testing.assert_close(shares[row, : len(source)], expected, rtol=0, atol=1e-5)
            assert shares[row, len(source) :].isnan().all()
        tokens = [14 + time, 16, 5]
        written = [[*before, token] for before, token in zip(written, tokens, strict=True)]
        _, state = attending.decoder.step(torch.tensor(tokens), state)


@pytest.mark.parametrize("objective", ["pseudo", "causal"])
@pytest.mark.parametrize("truncate", ["tail", "head"])
def test_an_alignment_names_the_word_that_is_looked_at_most(tmp_path: Path, objective: str, truncate: str) -> None:
    card = ModelCard(objective=objective, max_source=9, truncate=truncate)  # type: ignore[arg-type]
    encoder, sources = one_layer(), sentences(7, longest=16)
    options = replace(OPTIONS, nbest=2, attention=True)
    generator = Generator(encoder, card, tiny_tokenizer(tmp_path), options)
    reading: Reading = "mask" if objective == "pseudo" else "next"
    seen = set()
    for source, hypotheses in zip(sources, generator.generate(sources), strict=True):
        cut = max(0, len(source) - (7 if objective == "pseudo" else 8))
        read = source[cut:] if truncate == "head" else source[: len(source) - cut]
        for hypothesis in hypotheses:
            shares = [by_hand(encoder, reading, read, hypothesis.ids[:time]) for time in range(len(hypothesis.ids))]
            offset = cut if truncate == "head" else 0
            assert hypothesis.alignment == [offset + int(one.argmax()) for one in shares]
            seen.update(hypothesis.alignment)
    assert len(seen) > 2


@pytest.mark.parametrize(
    "options", [{"search": "s2s-ft"}, {"search": "greedy", "drafts": 2}, {"search": "sample", "nbest": 3}], ids=str
)
def test_every_search_has_alignments_and_writes_what_it_writes_without(tmp_path: Path, options: dict[str, Any]) -> None:
    sources, tokenizer = [*sentences(40), []], tiny_tokenizer(tmp_path)
    plain, told = (
        Generator(tiny_encoder(), ModelCard(), tokenizer, replace(OPTIONS, attention=wanted, **options)).generate(
            sources
        )
        for wanted in (False, True)
    )
    assert [[h._replace(alignment=None) for h in hs] for hs in told] == plain
    assert all(h.alignment is not None and len(h.alignment) == len(h.ids) for hs in told for h in hs)
    assert all(place is None for h in told[-1] for place in h.alignment or [])
    assert all(
        place is not None and 0 <= place < len(source)
        for source, hs in zip(sources[:-1], told[:-1], strict=True)
        for h in hs
        for place in h.alignment or []
    )


@pytest.mark.parametrize("objective", ["pseudo", "causal"])
@pytest.mark.parametrize(
    "options",
    [{"nbest": 3}, {"beam": 1}, {"must": ("a b",)}, {"beam": 4, "nbest": 2, "beam_groups": 2, "diversity": 0.5}],
    ids=str,
)
def test_the_score_has_the_penalty_for_what_is_not_covered(
    tmp_path: Path, objective: str, options: dict[str, Any]
) -> None:
    encoder, sources = one_layer(), sentences(9, longest=8)
    settled = replace(OPTIONS, coverage_penalty=0.4, length_penalty=0.7, **options)
    generator = Generator(encoder, ModelCard(objective=objective), tiny_tokenizer(tmp_path), settled)
    reading: Reading = "mask" if objective == "pseudo" else "next"
    for source, hypotheses in zip(sources, generator.generate(sources), strict=True):
        assert hypotheses
        for hypothesis in hypotheses:
            shares = [by_hand(encoder, reading, source, hypothesis.ids[:t]) for t in range(len(hypothesis.ids) + 1)]
            penalty = 0.4 * float(torch.stack(shares).sum(0).clamp(max=1).log().sum())
            length = len(hypothesis.token_scores)
            plain = sum(hypothesis.token_scores) / generator.scoring.divisor(length)
            assert hypothesis.score == pytest.approx(plain + penalty, abs=1e-4)
        assert [h.score for h in hypotheses] == sorted([h.score for h in hypotheses], reverse=True)


def test_the_penalty_changes_what_is_written_and_the_company_does_not(tmp_path: Path) -> None:
    sources, tokenizer = sentences(12), tiny_tokenizer(tmp_path)
    plain, covering, alone = (
        Generator(tiny_encoder(), ModelCard(), tokenizer, replace(OPTIONS, **options)).generate(sources)
        for options in ({}, {"coverage_penalty": 2.0}, {"coverage_penalty": 2.0, "batch_tokens": 60})
    )
    ids = [[[h.ids for h in hs] for hs in found] for found in (plain, covering, alone)]
    assert ids[0] != ids[1]
    assert ids[1] == ids[2]


def test_in_an_ensemble_the_first_model_looks(tmp_path: Path) -> None:
    tokenizer, source = tiny_tokenizer(tmp_path), sentences(3)
    models = [Opened(one_layer(seed), ModelCard(), tokenizer) for seed in (3, 4)]
    options = replace(OPTIONS, attention=True, coverage_penalty=0.5)
    found = Generator(*models[0], options, models[1:]).generate(source)
    for words, (best, *_) in zip(source, found, strict=True):
        shares = [by_hand(models[0].encoder, "mask", words, best.ids[:time]) for time in range(len(best.ids))]
        assert best.alignment == [int(one.argmax()) for one in shares]


def test_json_lines_name_the_source_tokens(tmp_path: Path) -> None:
    model, source, output = model_folder(tmp_path / "model"), tmp_path / "in", tmp_path / "out"
    source.write_text("a bc\n\n")
    options = {"attention": True, "beam": 2}
    generate.run(source=str(source), model=model, output=output, as_json=True, options=options)
    first, second = map(json.loads, output.read_text().splitlines())
    assert list(first) == ["id", "source", "hypotheses"]
    assert first["source"] == ["a", "b", "##c"]
    (best,) = first["hypotheses"]
    assert len(best["alignment"]) == len(best["tokens"])
    assert set(best["alignment"]) <= {0, 1, 2}
    assert second == {"id": None, "hypotheses": []}
    with pytest.raises(UsageError) as caught:
        generate.run(source=str(source), model=model, output=output, options=options)
    assert (caught.value.message, caught.value.hint) == (
        "attention is shown in JSON lines only",
        "--json, or --no-attention",
    )


def test_a_model_whose_first_token_has_no_attention_is_refused(tmp_path: Path) -> None:
    card = ModelCard(objective="causal", separator_in="source")
    for options in ({"attention": True}, {"coverage_penalty": 1.0}):
        with pytest.raises(UsageError) as caught:
            Generator(tiny_encoder(), card, tiny_tokenizer(tmp_path), replace(OPTIONS, **options))  # type: ignore[arg-type]
        assert caught.value.message == (
            "attention is not known for a model that predicts the first token while it reads the source"
        )
    Generator(tiny_encoder(), card, tiny_tokenizer(tmp_path), replace(OPTIONS, search="greedy", coverage_penalty=1.0))
