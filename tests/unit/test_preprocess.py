"""unilmctl preprocess: from a recipe to stores, with a table."""

import json
from pathlib import Path

import pytest

from unilmctl import examples
from unilmctl.commands import preprocess
from unilmctl.commands.preprocess import histogram
from unilmctl.data.store import Store
from unilmctl.errors import DataError

RECIPE = """
run: runs/tiny
data:
  train: {files: [train.jsonl]}
  valid: {files: [valid.tsv]}
  fetch: the attic
model: {architecture: bert, layers: 1, hidden: 8, heads: 1, feedforward: 8, positions: 64}
tokens: {max_source: 8, max_target: 6, train: {kind: wordpiece, size: 60}}
finetune: {steps: 1, warmup: 0}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"src": "one two " * (i % 4), "tgt": f"three {i % 3}"} for i in range(30)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("valid.tsv").write_text("one\tthree\ntwo\tthree 1\n")
    Path("tiny.yaml").write_text(RECIPE)
    return Path("tiny.yaml")


def test_stores_and_table(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = preprocess.run(recipe=recipe, workers=1)
    shown = capsys.readouterr()
    assert len(Store.open(Path("runs/tiny/store/train"))) == 30
    assert len(prepared.stores["valid"]) == 2
    lines = shown.out.splitlines()
    assert lines[0] == "Token stores in runs/tiny/store"
    assert " ".join(lines[1].split()) == "split field examples tokens mean longest cut empty unknown bad lines"
    assert lines[2].split()[:3] == ["train", "source", "30"]
    assert "train: length of source before the cut, in tokens" in lines
    assert "vocabulary: wordpiece" in shown.err
    assert "train: built (runs/tiny/store/train: no token store (store.json is missing))" in shown.err


def test_a_second_run_builds_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess.run(recipe=recipe, workers=1)
    first = capsys.readouterr()
    preprocess.run(recipe=recipe, workers=1)
    second = capsys.readouterr()
    assert second.out == first.out
    assert "train: up to date" in second.err
    preprocess.run(recipe=recipe, settings=["tokens.max_target=3"], workers=1)
    assert "train: built (limits.max_target was 6, is 3)" in capsys.readouterr().err


def test_bad_lines_are_warned_of(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("valid.tsv").write_text("one\tthree\nfour\n")
    with pytest.raises(DataError, match="valid.tsv:2: 2 columns"):
        preprocess.run(recipe=recipe, workers=1)
    preprocess.run(recipe=recipe, settings=["data.on_bad_line=skip"], workers=1)
    assert "warning: valid.tsv:2: 2 columns" in capsys.readouterr().err


def test_missing_data_says_where_it_comes_from(recipe: Path) -> None:
    Path("train.jsonl").unlink()
    with pytest.raises(DataError, match="train.jsonl: no such file") as caught:
        preprocess.run(recipe=recipe)
    assert caught.value.hint == "the data: the attic"


def test_built_in_data_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("numbers.yaml").write_text(
        RECIPE.replace("train.jsonl", "d/train.jsonl")
        .replace("valid.tsv", "d/valid.jsonl")
        .replace("fetch: the attic", "generated: numbers")
    )
    monkeypatch.setattr(examples, "SIZES", {"train": 40, "valid": 20})
    prepared = preprocess.run(recipe="numbers.yaml", workers=1)
    assert Path("d/train.jsonl").is_file()
    assert prepared.report["train"].examples == 80


def test_histogram() -> None:
    assert histogram({}) == []
    assert histogram({5: 2}) == [f"5  {'█' * 40}  2"]
    bars = histogram({1: 10, 2: 5, 95: 20})
    assert len(bars) == 10
    assert bars[0] == f"  1-10  {'█' * 30:<40}  15"
    assert bars[-1] == f"91-100  {'█' * 40}  20"
    assert sum(int(bar.split()[-1]) for bar in bars) == 35
