"""`unilmctl generate` as a function: files, formats, options, reports."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_writer import model_folder

from unilmctl.commands import generate
from unilmctl.commands.generate import merged_options
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.generation import Tally


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def written(tmp_path: Path, content: str | bytes, name: str = "in.txt") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def run(model: Path, source: str, **options: Any) -> tuple[Tally, list[str]]:
    output = model.parent / "out"
    tally = generate.run(source=source, model=model, output=output, **options)
    return tally, output.read_text(encoding="utf-8").split("\n")[:-1]


def test_one_line_out_for_every_line_in_and_empty_for_empty(model: Path, tmp_path: Path) -> None:
    tally, lines = run(model, written(tmp_path, "a b\n\nc d e"))
    assert len(lines) == 3
    assert lines[1] == ""
    assert tally == Tally(records=3)


def test_json_lines_in_and_out(model: Path, tmp_path: Path) -> None:
    source = written(tmp_path, '{"src": "a b", "id": "x"}\n{"src": ["a", "b"], "id": 2}\n{"src": ""}\n')
    _, lines = run(model, source, as_json=True, options={"nbest": 2})
    first, second, third = map(json.loads, lines)
    assert [first["id"], second["id"], third["id"]] == ["x", 2, None]
    assert first["hypotheses"] == second["hypotheses"]
    assert third["hypotheses"] == []
    best, other = first["hypotheses"]
    assert list(best) == ["text", "tokens", "score", "token_scores"]
    assert "[SEP]" not in best["tokens"]
    assert len(best["token_scores"]) == len(best["tokens"]) + 1
    assert sum(best["token_scores"]) == pytest.approx(best["score"], abs=1e-5)
    assert best["score"] >= other["score"]


def test_nbest_as_text_gives_n_lines_for_every_line(model: Path, tmp_path: Path) -> None:
    _, lines = run(model, written(tmp_path, "a\n\nb\n"), options={"nbest": 3})
    assert len(lines) == 9
    assert lines[3:6] == ["", "", ""]


def test_bad_lines_are_counted_and_keep_their_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path, b'{"src": "a b"}\n{"tgt": "b"}\n{"src": "a\xff"}\n')
    tally, lines = run(model, source, on_bad_line="skip", as_json=True)
    assert tally.bad == 2
    assert [bool(json.loads(line)["hypotheses"]) for line in lines] == [True, False, False]
    assert "'src' is missing" in json.loads(lines[1])["error"]
    assert "2 of 3 lines could not be read as they are" in capsys.readouterr().err
    _, lines = run(model, source, on_bad_line="replace", as_json=True)
    assert [bool(json.loads(line)["hypotheses"]) for line in lines] == [True, False, True]
    with pytest.raises(DataError, match="in.txt:2: 'src' is missing"):
        run(model, source)
    assert (tmp_path / "out").read_text().splitlines() == lines  # what was there stays
    assert len((tmp_path / "out.unfinished").read_text().splitlines()) == 1


def test_cut_sources_are_reported(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally, _ = run(model, written(tmp_path, "a " * 30 + "\na\n"))
    assert tally.cut == 1
    assert "1 of 2 sources were cut to 22 tokens" in capsys.readouterr().err


def test_options_go_from_card_to_recipe_to_command_line(tmp_path: Path) -> None:
    settled = merged_options({"beam": 2, "nbest": 2}, {"beam": 3, "forbid": ["x"]}, {"min_length": 1})
    assert (settled.beam, settled.nbest, settled.forbid, settled.min_length) == (3, 2, ("x",), 1)
    assert merged_options({"diversity": 0.5, "beam_groups": 5}, {}, {"search": "greedy"}).search == "greedy"
    assert merged_options({"top_k": 3}, {}, {}).top_k == 3


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"top_k": 3}, "--top-k has no meaning for beam search", "--search sample"),
        ({"min_p": 0.1}, "--min-p has no meaning for beam search", "--search sample"),
        ({"search": "greedy", "typical_p": 0.1}, "--typical-p has no meaning for greedy search", "--search sample"),
        (
            {"search": "greedy", "coverage_penalty": 1},
            "--coverage-penalty has no meaning for greedy search",
            "--search beam",
        ),
        ({"alpha": 0.5}, "--alpha has no meaning for beam search", "--search contrastive"),
        ({"search": "s2s-ft", "beam_groups": 5}, "--beam-groups has no meaning for s2s-ft search", "--search beam"),
        ({"search": "sample", "diversity": 1}, "--diversity has no meaning for sample search", "--search beam"),
        (
            {"search": "s2s-ft", "repetition_penalty": 1},
            "--repetition-penalty has no meaning for s2s-ft search",
            "--search beam",
        ),
    ],
)
def test_options_are_refused_by_searches_that_have_no_use_for_them(
    given: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        merged_options({}, {}, given)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_model_cards_options_count(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "carded", generate={"nbest": 2})
    _, lines = run(model, written(tmp_path, "a\n"))
    assert len(lines) == 2


def test_a_recipe_lends_its_section_and_its_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "runs/mine/checkpoints/step-1"
    model_folder(checkpoint)
    (tmp_path / "runs/mine/best").write_text("step-1")
    recipe = written(
        tmp_path,
        "run: runs/mine\ndata: {train: {files: [x.jsonl]}}\nmodel: {init: model}\ngenerate: {nbest: 2}\n",
        "r.yaml",
    )
    output = tmp_path / "out"
    generate.run(source=written(tmp_path, "a\n"), output=output, recipe=recipe)
    assert len(output.read_text().splitlines()) == 2
    assert "step-1" in capsys.readouterr().err
    generate.run(source=written(tmp_path, "a\n"), output=output, recipe=recipe, settings=["generate.nbest=3"])
    assert len(output.read_text().splitlines()) == 3


def test_without_a_model_the_last_run_is_taken_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no last run"):
        generate.run(source=written(tmp_path, "a\n"))
    model_folder(tmp_path / "runs/mine/checkpoints/step-2")
    (tmp_path / "runs/mine/latest").write_text("step-2")
    (tmp_path / "runs/latest").write_text("mine")
    generate.run(source=written(tmp_path, "a\n"), output=tmp_path / "out")
    assert "step-2" in capsys.readouterr().err


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    source = written(tmp_path, "a\n")
    with pytest.raises(UsageError, match="--set overrides a recipe, and no recipe is given"):
        run(model, source, settings=["generate.beam=2"])
    with pytest.raises(ModelError, match="neither a model folder nor a run"):
        run(tmp_path / "absent", source)
    (model / "vocab.txt").write_text((model / "vocab.txt").read_text() + "more\n")
    with pytest.raises(ModelError, match="the tokenizer has 28 entries, the model only 27"):
        run(model, source)


def test_an_untrained_head_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_folder(tmp_path / "fresh", head_trained=False)
    run(model, written(tmp_path, "a\n"))
    assert "the language-model head was never trained" in capsys.readouterr().err


def test_standard_input_and_output(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a b\nc\n")))
    generate.run(model=model, prefix="d e")
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("d e") for line in lines)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_objective_can_be_overruled(model: Path, tmp_path: Path, objective: str) -> None:
    source = written(tmp_path, "a b c\n")
    _, theirs = run(model, source, objective=objective, as_json=True)
    _, plain = run(model, source, as_json=True)
    assert (theirs == plain) == (objective == "masked")
