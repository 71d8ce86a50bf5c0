"""Stores of raw text: built when missing or stale, the same with any number of processes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from unilmctl.data import encoding, streams
from unilmctl.errors import DataError
from unilmctl.preparation import PreparedText, prepare_text
from unilmctl.tokens import Tokenizer

TEXT = "".join(f"w{i % 7} v{i % 3} end\n" + "\n" * (i % 4 == 3) for i in range(60))


@dataclass(frozen=True)
class Split:
    files: list[Path]
    format: str = "auto"
    documents: str = "blank-line"
    field: str = "text"
    segmenter: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    kind: str = "wordpiece"
    size: int = 60
    lowercase: bool = False


@pytest.fixture
def split(tmp_path: Path) -> Split:
    file = tmp_path / "train.txt"
    file.write_text(TEXT)
    return Split([file])


def prepared(tmp_path: Path, split: Split, **options: object) -> PreparedText:
    given = {"tokenizer": Vocabulary(), "processes": 1, **options}
    return prepare_text(folder=tmp_path / "store", splits={"train": split}, **given)  # type: ignore[arg-type]


def test_documents_are_stored_then_found(tmp_path: Path, split: Split) -> None:
    first = prepared(tmp_path, split)
    store, report = first.stores["train"], first.report["train"]
    assert first.trained
    assert (len(store), report.documents, report.sentences) == (15, 15, 60)
    lines = TEXT.split("\n\n")[1].splitlines()
    ids = [first.tokenizer.encode(line) for line in lines]
    assert store.field("text", 1).tolist() == [one for sentence in ids for one in sentence]
    assert store.field("ends", 1).tolist() == [sum(map(len, ids[: i + 1])) for i in range(4)]
    assert report.tokens == store.lengths("text").sum() == sum(n * count for n, count in report.lengths.items())
    again = prepared(tmp_path, split)
    assert again.trained is None
    assert again.report["train"] == replace(report, built=None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"documents": "lines"}, 'documents was "blank-line", is "lines"'),
        ({"field": "body"}, 'field was "text", is "body"'),
    ],
)
def test_changed_settings_build_again(tmp_path: Path, split: Split, change: dict[str, str], reason: str) -> None:
    tokenizer = tmp_path / "vocabulary"
    prepared(tmp_path, split).tokenizer.save(tokenizer)
    prepared(tmp_path, split, tokenizer=tokenizer)
    assert prepared(tmp_path, replace(split, **change), tokenizer=tokenizer).report["train"].built == reason  # type: ignore[arg-type]
    split.files[0].write_text(TEXT + "more\n")
    assert prepared(tmp_path, split, tokenizer=tokenizer).report["train"].built == f"{split.files[0]} has changed"


def test_a_vocabulary_is_learnt_from_documents_of_any_kind(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"text": [["ab", "cd"], ["ef"]]}) + "\n" for _ in range(3)))
    made = prepared(tmp_path, Split([file], segmenter="given"))
    assert made.stores["train"].fields == ("text", "ends", "units")
    assert made.tokenizer.encode("ab cd ef") == made.stores["train"].field("text", 0).tolist()


def test_other_processes_do_the_same(tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, split).tokenizer.save(tmp_path / "vocabulary")
    expected = (tmp_path / "store" / "train" / "shard-00000.safetensors").read_bytes()
    monkeypatch.setattr(streams, "BLOCK", 50)
    monkeypatch.setattr(encoding, "ALONE", 2)
    prepared(tmp_path, split, tokenizer=tmp_path / "vocabulary", processes=2, rebuild=True)
    assert (tmp_path / "store" / "train" / "shard-00000.safetensors").read_bytes() == expected
    assert Tokenizer.load(tmp_path / "vocabulary").size


def test_no_text_is_said(tmp_path: Path, split: Split) -> None:
    tokenizer = prepared(tmp_path, split).tokenizer
    tokenizer.save(tmp_path / "vocabulary")
    split.files[0].write_text("\n \n")
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, split, tokenizer=tmp_path / "vocabulary")
    assert caught.value.message == f"{split.files[0]}: no text"
