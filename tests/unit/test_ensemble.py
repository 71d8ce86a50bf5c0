"""Several models that write together: their mean, and what they must share."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_writer import model_folder, sentences, tiny_encoder, tiny_tokenizer

from unilmctl.cli import run as command_line
from unilmctl.commands import generate
from unilmctl.errors import ModelError, UsageError
from unilmctl.generation import GenerateOptions, Generator, Opened, Scorer
from unilmctl.weights import ModelCard

OPTIONS = GenerateOptions(max_length=10, beam=3)


def members(folder: Path, *objectives: str) -> list[Opened]:
    """Models of different weights and sizes."""
    tokenizer = tiny_tokenizer(folder)
    sizes: list[dict[str, Any]] = [{}, {"hidden": 24}, {"layers": 1, "positions": 40}]
    return [
        Opened(tiny_encoder(7 + place, **sizes[place]), ModelCard(objective=objective), tokenizer)
        for place, objective in enumerate(objectives)
    ]


def together(models: list[Opened], options: GenerateOptions) -> Generator:
    return Generator(*models[0], options, models[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"nbest": 3},
        {"search": "greedy"},
        {"search": "sample", "nbest": 2, "top_p": 0.9},
        {"search": "s2s-ft", "forbid": ("[PAD]",), "min_length": 2},
        {"must": ("a b",), "beam_groups": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("objectives", [("pseudo", "pseudo"), ("causal", "pseudo", "masked")], ids=str)
def test_a_tokens_probability_is_the_mean_of_the_members(
    tmp_path: Path, objectives: tuple[str, ...], options: dict[str, Any]
) -> None:
    models, sources = members(tmp_path, *objectives), sentences(9)
    found = together(models, replace(OPTIONS, **options)).generate(sources)
    pairs = [(source, h.ids) for source, hs in zip(sources, found, strict=True) for h in hs]
    each = [Scorer(*model, max_length=10).score(pairs) for model in models]
    assert len(pairs) >= 9
    for place, hypothesis in enumerate(h for hs in found for h in hs):
        mean = np.log(np.mean([np.exp(scored[place].token_scores) for scored in each], axis=0))
        assert hypothesis.token_scores == pytest.approx(mean[: len(hypothesis.token_scores)], abs=1e-4)


@pytest.mark.parametrize("search", ["beam", "sample"])
def test_words_that_not_all_members_have_are_never_written(tmp_path: Path, search: str) -> None:
    """Embeddings without a token, however likely, and however the weights are packed."""
    options, sources = replace(OPTIONS, search=search), sentences(6)

    def found(*, packed: bool) -> list[list[list[int]]]:
        models = [*members(tmp_path, "pseudo"), members(tmp_path, "pseudo")[0]]
        models[1] = models[1]._replace(encoder=tiny_encoder(8, vocabulary=31))
        models[1].encoder.head.bias.data[27:] = 9.0
        models = [model.packed("float32") for model in models] if packed else models
        return [
            [h.ids for h in hs] for one in (models, models[::-1]) for hs in together(one, options).generate(sources)
        ]

    plain = found(packed=False)
    assert plain == found(packed=True)
    assert all(token < 27 for hs in plain for ids in hs for token in ids)
    assert all(hs for hs in plain)


def test_a_model_with_itself_is_itself(tmp_path: Path) -> None:
    (one,) = members(tmp_path, "pseudo")
    alone, twice = (together(models, OPTIONS).generate(sentences(6)) for models in ([one], [one, one]))
    assert [[h.ids for h in hs] for hs in twice] == [[h.ids for h in hs] for hs in alone]
    assert [hs[0].score for hs in twice] == pytest.approx([hs[0].score for hs in alone], abs=1e-5)


def test_the_tightest_limits_hold(tmp_path: Path) -> None:
    first, second = members(tmp_path, "pseudo", "causal")
    second = second._replace(card=replace(second.card, max_source=12, max_target=9))
    generator = together([first, second], GenerateOptions())
    assert (generator.longest_source, generator.rules.max_length) == (11, 9)


def test_the_command_line_takes_several_models(tmp_path: Path) -> None:
    first, second = model_folder(tmp_path / "one"), model_folder(tmp_path / "two", objective="causal")
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_text("a b c\nd\n")
    words = ["generate", str(source), "--output", str(output), "--json", "--workers", "2"]
    scores = []
    for folders in ([first], [second], [first, second]):
        given = [word for folder in folders for word in ("--model", str(folder))]
        assert command_line([*words, *given]) == 0
        scores.append([json.loads(line)["hypotheses"][0]["score"] for line in output.read_text().splitlines()])
    assert scores[2] not in scores[:2]


def test_another_vocabulary_is_refused_with_the_difference(tmp_path: Path) -> None:
    first, second = model_folder(tmp_path / "one"), model_folder(tmp_path / "two")
    words = (second / "vocab.txt").read_text()
    source = tmp_path / "in"
    source.write_text("a\n")

    def message() -> str:
        with pytest.raises(ModelError) as caught:
            generate.run(source=str(source), model=first, others=[second])
        return caught.value.message

    (second / "vocab.txt").write_text(words.replace("b\n", "z\n", 1))
    assert message() == f"{second}: its vocabulary is not that of {first}: 'z' has the number of 'b'"
    (second / "vocab.txt").write_text(words.removesuffix(",\n"))
    assert message() == f"{second}: its vocabulary is not that of {first}: 26 tokens and 27"


def test_drafts_are_of_one_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        together(members(tmp_path, "pseudo", "pseudo"), replace(OPTIONS, search="greedy", drafts=2))
    assert caught.value.message == "drafts are verified by one model, not by 2 together"


def test_a_state_can_be_joined_and_reordered(tmp_path: Path) -> None:
    models, sources = members(tmp_path, "pseudo", "causal"), [np.array(one) for one in sentences(3)]
    decoder = together(models, OPTIONS).decoder
    _, whole = decoder.start([sources[2], sources[0]])
    _, first = decoder.start(sources[:2])
    _, last = decoder.start(sources[2:])
    some = first.joined(last).reordered(torch.tensor([2, 0]), torch.tensor([2, 0]))
    tokens = torch.tensor([5, 6])
    ours, theirs = decoder.step(tokens, some), decoder.step(tokens, whole)
    assert torch.allclose(ours[0].exp(), theirs[0].exp(), atol=1e-5)
    assert torch.allclose(ours[1].hidden, theirs[1].hidden, atol=1e-4)
