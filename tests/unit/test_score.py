"""`unilmctl score` as a function; what it prints is what generate printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_writer import model_folder

from unilmctl.commands import generate, score
from unilmctl.errors import DataError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model", generate={"length_penalty": 0.7})


def run(model: Path, content: str, name: str = "in.jsonl", **options: Any) -> list[str]:
    source, output = model.parent / name, model.parent / "out"
    source.write_text(content)
    score.run(source=str(source), model=model, output=output, **options)
    return output.read_text().split("\n")[:-1]


@pytest.mark.parametrize("objective", ["pseudo", "causal", "next-token"])
@pytest.mark.parametrize("options", [{}, {"length_normalization": "average"}, {"length_penalty": 0.0}], ids=str)
def test_score_equals_generate(model: Path, objective: str, options: dict[str, Any]) -> None:
    source = model.parent / "source.jsonl"
    sources = [["a", "b", "c"], ["d"], ["e", "##a", "f", "g"] * 9]
    source.write_text("".join(json.dumps({"src": tokens}) + "\n" for tokens in sources))
    output = model.parent / "generated"
    more = {"nbest": 2, "search": "sample"}
    generate.run(
        source=str(source), model=model, output=output, as_json=True, objective=objective, options=options | more
    )
    found = [json.loads(line)["hypotheses"] for line in output.read_text().splitlines()]
    pairs = [(src, h) for src, hypotheses in zip(sources, found, strict=True) for h in hypotheses]
    content = "".join(json.dumps({"src": src, "tgt": h["tokens"], "id": 1}) + "\n" for src, h in pairs)
    lines = [json.loads(line) for line in run(model, content, as_json=True, objective=objective, options=options)]
    for line, (_, hypothesis) in zip(lines, pairs, strict=True):
        assert line["score"] == pytest.approx(hypothesis["score"], abs=1e-5)
        assert line["token_scores"] == pytest.approx(hypothesis["token_scores"], abs=1e-5)
        assert line["tokens"] == hypothesis["tokens"]
        assert line["id"] == 1
    plain = run(model, content, objective=objective, options=options)
    assert [float(line) for line in plain] == pytest.approx([line["score"] for line in lines], abs=1e-5)


def test_tsv_lines_score_like_json_lines(model: Path) -> None:
    table = run(model, "a b\tc d\n", "in.tsv")
    lines = run(model, '{"src": "a b", "tgt": "c d"}\n{"src": "a b", "refs": ["c d", "e"]}\n')
    assert len(table) == 1
    assert [float(line) for line in lines] == pytest.approx([float(table[0])] * 2, abs=1e-6)


def test_bad_lines_and_targets_that_do_not_fit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = json.dumps({"src": "a", "tgt": "b " * 60, "id": 3})
    content = '{"src": "a", "tgt": "b"}\n{"src": "a"}\n' + long + "\n"
    lines = run(model, content, on_bad_line="skip", as_json=True)
    assert [("score" in json.loads(line)) for line in lines] == [True, False, False]
    assert "'tgt' is missing" in json.loads(lines[1])["error"]
    assert "source and target take 64 positions, the model has 48" in json.loads(lines[2])["error"]
    assert json.loads(lines[2])["id"] == 3
    assert "2 of 3 lines could not be read" in capsys.readouterr().err
    assert run(model, content, on_bad_line="skip")[1:] == ["", ""]
    with pytest.raises(DataError, match="in.jsonl:2: 'tgt' is missing"):
        run(model, content)
    with pytest.raises(DataError, match="in.jsonl:1: source and target take 64 positions"):
        run(model, long + "\n")
