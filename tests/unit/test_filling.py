"""Gaps: how lines are read and written again, in which order they are filled, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_writer import WORDS, model_folder, tiny_encoder, tiny_tokenizer

from unilmctl.commands import generate
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.generation import Filler, GenerateOptions, Opened, gapped
from unilmctl.generation.ways import ordered
from unilmctl.tokens import Tokenizer
from unilmctl.tokens import train as train_tokenizer
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import ModelCard

MASK = WORDS.index("[MASK]")


def filled(text: str | list[str], fillings: list[str], tokenizer: Tokenizer) -> tuple[str, list[str]]:
    """A line with the tokens of each filling, parted by blanks, in its gaps."""
    line = gapped([text], tokenizer)[0]
    return line.filled([tokenizer.encode_tokens(one.split()) for one in fillings], tokenizer)


def run(folder: Path, text: str, **options: Any) -> list[str]:
    (folder / "lines.txt").write_text(text)
    generate.run(
        source=str(folder / "lines.txt"), model=folder / "model", output=folder / "out.txt", fill=True, **options
    )
    return (folder / "out.txt").read_text().splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_folder(tmp_path / "model")
    return tmp_path


def test_what_stands_around_a_gap_stays_as_it_was_written(tmp_path: Path) -> None:
    words = tiny_tokenizer(tmp_path)
    assert filled("A  b [MASK] Z, x", ["d"], words) == ("A  b d Z, x", ["d"])
    assert filled("a [MASK] [MASK][MASK] b [MASK]", ["c ##d e", "f"], words) == ("a cd e b f", ["cd e", "f"])
    assert filled("[MASK]", ["a b"], words) == ("a b", ["a b"])
    assert filled(" [MASK] a", ["b"], words) == ("b a", ["b"])
    assert filled("a [MASK].", ["##b"], words) == ("ab.", ["b"])
    assert filled("no gap ", [], words) == ("no gap ", [])
    assert filled(["a", "[MASK]", "b"], ["c"], words) == ("a c b", ["c"])


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_blanks_are_part_of_tokens_where_the_vocabulary_says_so(kind: str) -> None:
    words = train_tokenizer(["the cat sat on the mat."] * 9, kind=kind, size=300)
    mark = words.tokens([words.roles.mask])[0]
    mask = words.roles.mask
    sentence, cat = words.encode("the cat sat"), words.encode(" cat" if kind == "bpe" else "cat")
    line = gapped([f"the {mark * len(cat)} sat"], words)[0]
    begin, end = line.gaps[0][0], line.gaps[0][-1] + 1
    assert [*line.ids[:begin].tolist(), *cat, *line.ids[end:].tolist()] == sentence
    assert line.filled([cat], words) == ("the cat sat", ["cat"])
    point, whole = gapped([f"the {mark}."], words)[0], words.encode("the mat.")
    assert point.ids.tolist() == [*words.encode("the"), mask, whole[-1]]
    assert words.tokens(whole[-1:]) == ["."]


def test_an_order_is_of_single_places_of_gaps_or_of_all_at_once() -> None:
    places, sure = np.array([2, 5, 6, 9]), np.log([0.5, 0.1, 0.7, 0.9])
    orders = {name: [some.tolist() for some in ordered(places, sure, name)] for name in ("surest", "gaps", "at-once")}
    assert orders == {"surest": [[9], [6], [2], [5]], "gaps": [[9], [2], [5, 6]], "at-once": [[2, 5, 6, 9]]}
    assert [some.tolist() for some in ordered(places, np.zeros(4), "left-to-right")] == [[2], [5], [6], [9]]


@pytest.mark.parametrize("order", ["surest", "left-to-right", "gaps", "at-once"])
def test_greedy_answers_are_the_likeliest_of_full_passes(order: str, tmp_path: Path) -> None:
    encoder, words = tiny_encoder(), tiny_tokenizer(tmp_path)
    line = gapped(["a b [MASK] c [MASK] [MASK] d e"], words)[0]
    options = GenerateOptions(search="greedy")
    filler = Filler(Opened(encoder, ModelCard(), words), options, objective=None, order=order)
    ((found,),) = filler.fill([line], [0])
    ids = [2, *line.ids.tolist(), 3]
    scores: dict[int, float] = {}

    def looked() -> torch.Tensor:
        tokens, positions = torch.tensor([ids]), torch.arange(len(ids))[None]
        zeros = torch.zeros_like(tokens)
        with torch.no_grad():
            hidden, _ = encoder(tokens, positions, zeros, Slots(zeros, zeros, zeros + FOREVER))
            logits = encoder.logits(hidden[0]).log_softmax(-1)
        logits[:, [0, 2, 3, 4]] = -torch.inf
        return logits

    first = looked()
    places = [place for place, token in enumerate(ids) if token == MASK]
    sure = np.array([float(first[place].max()) for place in places])
    for some in ordered(np.array(places), sure, order):
        now = looked()
        for place in some.tolist():
            scores[place], ids[place] = float(now[place].max()), int(now[place].argmax())
    assert [token for gap in found.gaps for token in gap.ids] == [ids[place] for place in places]
    assert [one for gap in found.gaps for one in gap.token_scores] == pytest.approx([scores[p] for p in places], 1e-5)
    assert found.score == pytest.approx(sum(scores.values()), 1e-5)


def test_lines_are_answered_one_for_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a [MASK] b\n\nno gap\n[MASK] [MASK] c d [MASK]\n"
    lines = run(folder, text, options={"beam": 3, "nbest": 2})
    assert len(lines) == 8
    assert lines[2:6] == ["", "", "no gap", ""]
    assert "1 of 4 lines have no gap: a gap is written [MASK]" in capsys.readouterr().err
    shown = [json.loads(line) for line in run(folder, text, as_json=True, options={"beam": 3, "nbest": 2})]
    assert [[one["text"] for one in line["hypotheses"]] for line in shown[::3]] == [lines[:2], lines[6:]]
    for line in shown:
        for one in line["hypotheses"]:
            total = sum(score for gap in one["gaps"] for score in gap["token_scores"])
            assert one["score"] == pytest.approx(total, 1e-5)
    assert [len(gap["tokens"]) for gap in shown[3]["hypotheses"][0]["gaps"]] == [2, 1]
    alone = run(folder, text.splitlines()[3] + "\n", options={"beam": 3, "nbest": 2})
    assert alone == lines[6:], "whatever is filled beside it"


def test_gaps_of_unknown_length_are_as_long_as_they_turn_out(folder: Path) -> None:
    options = {"max_length": 3, "beam": 4, "nbest": 4}
    text = "a [MASK] b [MASK][MASK].\n[MASK]\n"
    lines = [json.loads(line) for line in run(folder, text, objective="infilling", as_json=True, options=options)]
    for line, marks in zip(lines, (2, 1), strict=True):
        for one in line["hypotheses"]:
            assert [1 <= len(gap["tokens"]) <= 3 for gap in one["gaps"]] == [True] * marks
            assert [len(gap["token_scores"]) - len(gap["tokens"]) for gap in one["gaps"]] == [1] * marks
            assert one["score"] == pytest.approx(sum(score for gap in one["gaps"] for score in gap["token_scores"]))
    best = lines[0]["hypotheses"][0]
    first, second = (gap["text"] for gap in best["gaps"])
    assert best["text"] == f"a {first} b {second}."
    scores = [one["score"] for one in lines[0]["hypotheses"]]
    assert scores == sorted(scores, reverse=True)


def test_the_same_seed_draws_the_same(folder: Path) -> None:
    drawn = [
        run(folder, "a [MASK] [MASK] b\n", options={"search": "sample", "nbest": 4, "seed": seed}) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_line_that_does_not_fit_is_a_bad_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a " * 47 + "[MASK]"
    with pytest.raises(DataError) as caught:
        run(folder, f"a [MASK]\n{long}\n")
    assert caught.value.message.endswith(
        "lines.txt:2: takes 50 tokens, special ones counted, and the model has 48 positions"
    )
    lines = run(folder, f"a [MASK]\n{long}\n", on_bad_line="skip", as_json=True)
    assert json.loads(lines[1])["error"] == caught.value.message
    assert "1 of 2 lines could not be read as they are" in capsys.readouterr().err
    assert run(folder, long.replace("[MASK]", "b") + "\n") == [long.replace("[MASK]", "b")], "there is nothing to fill"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"options": {"must": ["a"]}}, "--must has no meaning for gaps"),
        ({"options": {"search": "contrastive"}}, "contrastive search does not fill gaps"),
        ({"options": {"forbid": ["zzz"]}}, "forbid: the vocabulary has no token 'zzz'"),
        ({"options": {"search": "greedy", "beam": 3}}, "--beam has no meaning for greedy search"),
        ({"objective": "pseudo"}, "'pseudo' fills no gaps"),
        ({"options": {"max_length": 3}}, "a gap has as many tokens as marks for 'bidirectional'"),
        ({"options": {"length_penalty": 1.0}}, "a gap has as many tokens as marks for 'bidirectional'"),
        ({"order": "gaps", "objective": "infilling"}, "'infilling' cannot fill gaps in the order gaps"),
        ({"prefix": "a"}, "--prefix has no meaning for gaps"),
        ({"order": "best"}, "'bidirectional' cannot fill gaps in the order best"),
        (
            {"order": "surest", "objective": "block-diffusion"},
            "'block-diffusion' cannot fill gaps in the order surest",
        ),
        ({"fill": False, "order": "gaps"}, "--order is the order in which gaps are filled"),
    ],
)
def test_what_gaps_have_no_use_for_is_refused(wrong: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        generate.run(**{"source": "-", "model": folder / "model", "fill": True, **wrong})
    assert caught.value.message == message


def test_a_model_that_was_taught_none_is_refused_unless_told_how(tmp_path: Path) -> None:
    model_folder(tmp_path / "model", fills={})
    with pytest.raises(ModelError) as caught:
        run(tmp_path, "a [MASK]\n")
    assert caught.value.message == "the model was not trained to fill gaps"
    assert len(run(tmp_path, "a [MASK]\n", objective="partial")) == 1
