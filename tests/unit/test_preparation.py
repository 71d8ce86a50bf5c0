"""Preparation: vocabularies and stores are built when missing or stale, and say what they met."""

import json
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from unilmctl.data import encoding, streams
from unilmctl.data.encoding import Coder, Encoded, encode_chunks
from unilmctl.data.reading import chunks_of
from unilmctl.data.store import Store
from unilmctl.errors import DataError, ModelError, OutOfMemory
from unilmctl.preparation import Prepared, building, evaluation_pairs, prepare
from unilmctl.tokens import Tokenizer

ROWS = [{"src": f"w{i % 7} " * (i % 5 + 1), "tgt": f"v{i % 3} end"} for i in range(60)]


@dataclass(frozen=True)
class Split:
    files: list[Path]
    target_files: list[Path] | None = None
    format: str = "auto"
    source: str = "src"
    target: str = "tgt"
    references: str = "refs"


@dataclass(frozen=True)
class Limits:
    max_source: int = 64
    max_target: int = 32
    truncate: str = "tail"


@dataclass(frozen=True)
class Vocabulary:
    kind: str = "wordpiece"
    size: int = 60
    lowercase: bool = False


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Split]:
    valid = [{"src": "w1 w2", "refs": ["v1 end", "v2"]}, {"src": ["w", "##3"], "tgt": ["v", "##1"]}]
    return {
        "train": Split([write(tmp_path / "train.jsonl", list(ROWS))]),  # type: ignore[arg-type]
        "valid": Split([write(tmp_path / "valid.jsonl", valid)]),  # type: ignore[arg-type]
    }


def prepared(tmp_path: Path, splits: dict[str, Split], **options: object) -> Prepared:
    given = {"limits": Limits(), "tokenizer": Vocabulary(), "processes": 1, **options}
    return prepare(folder=tmp_path / "store", splits=splits, **given)  # type: ignore[arg-type]


def built(result: Prepared) -> dict[str, str | None]:
    return {"vocabulary": result.trained, **{name: report.built for name, report in result.report.items()}}


def test_everything_is_built_then_nothing(tmp_path: Path, splits: dict[str, Split]) -> None:
    first = prepared(tmp_path, splits)
    assert all(built(first).values())
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["tokenizer", "train", "valid"]
    for row, i in zip(ROWS, range(60), strict=True):
        pair = first.stores["train"][i]
        assert pair.source.tolist() == first.tokenizer.encode(row["src"])
        assert pair.target.tolist() == first.tokenizer.encode(row["tgt"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    again = prepared(tmp_path, splits)
    assert built(again) == {"vocabulary": None, "train": None, "valid": None}
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert again.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    for name, report in again.report.items():
        assert report == replace(first.report[name], built=None)


def test_building_is_deterministic(tmp_path: Path, splits: dict[str, Split]) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}

    prepared(tmp_path, splits)
    before = content()
    assert all(reason == "it was asked for" for reason in built(prepared(tmp_path, splits, rebuild=True)).values())
    assert content() == before


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"limits": Limits(max_target=9)}, {"train": "limits.max_target was 32, is 9", "vocabulary": None}),
        ({"limits": Limits(truncate="head")}, {"valid": 'limits.truncate was "tail", is "head"'}),
        (
            {"tokenizer": Vocabulary(size=25)},
            {"vocabulary": "size was 60, is 25", "train": "the vocabulary has changed"},
        ),
        ({"tokenizer": Vocabulary(lowercase=True)}, {"vocabulary": "lowercase was false, is true"}),
        ({"on_bad_line": "skip"}, {"train": 'on_bad_line was "fail", is "skip"'}),
    ],
)
def test_changed_settings_build_again(
    tmp_path: Path, splits: dict[str, Split], change: dict[str, object], reasons: dict[str, str | None]
) -> None:
    prepared(tmp_path, splits)
    got = built(prepared(tmp_path, splits, **change))
    for name, reason in reasons.items():
        assert got[name] == reason


def test_changed_files_build_again(tmp_path: Path, splits: dict[str, Split]) -> None:
    prepared(tmp_path, splits)
    write(splits["valid"].files[0], [{"src": "w1", "tgt": "v1"}])
    got = prepared(tmp_path, splits)
    reason = f"{splits['valid'].files[0]} has changed"
    assert built(got) == {"vocabulary": None, "train": None, "valid": reason}
    assert len(got.stores["valid"]) == 1


@pytest.mark.parametrize("name", ["train/store.json", "train/shard-00000.safetensors", "tokenizer/vocab.txt"])
def test_broken_results_are_built_again(tmp_path: Path, splits: dict[str, Split], name: str) -> None:
    before = prepared(tmp_path, splits).stores["train"][3]
    path = tmp_path / "store" / name
    path.write_bytes(path.read_bytes()[:-9])
    got = prepared(tmp_path, splits)
    part = "vocabulary" if name.startswith("tokenizer") else "train"
    assert built(got)[part] is not None
    assert got.stores["train"][3].source.tolist() == before.source.tolist()


def test_a_given_tokenizer_is_used(tmp_path: Path, splits: dict[str, Split]) -> None:
    made = prepared(tmp_path, splits).tokenizer
    made.save(tmp_path / "model")
    got = prepared(tmp_path / "other", splits, tokenizer=tmp_path / "model")
    assert got.trained is None
    assert got.tokenizer.fingerprint() == made.fingerprint()
    assert not (tmp_path / "other" / "store" / "tokenizer").exists()
    with pytest.raises(ModelError, match="no tokenizer here"):
        prepared(tmp_path, splits, tokenizer=tmp_path)


@pytest.mark.parametrize("truncate", ["tail", "head"])
def test_cuts_leave_room_for_special_tokens_and_are_counted(
    tmp_path: Path, splits: dict[str, Split], truncate: str
) -> None:
    whole = prepared(tmp_path / "whole", splits)
    got = prepared(tmp_path, splits, limits=Limits(5, 3, truncate))
    report = got.report["train"]
    assert got.stores["train"].lengths("source").max() == 3  # [CLS] and [SEP] join them
    assert got.stores["train"].lengths("target").max() == 2
    for i in range(60):
        source, target = (part.tolist() for part in whole.stores["train"][i][:2])
        cut = source[-3:] if truncate == "head" else source[:3]
        assert [part.tolist() for part in got.stores["train"][i][:2]] == [cut, target[:2]]
    full = {name: whole.stores["train"].lengths(name) for name in ("source", "target")}
    assert report.cut == {"source": int((full["source"] > 3).sum()), "target": int((full["target"] > 2).sum())}
    assert sum(length * n for length, n in report.lengths["source"].items()) == full["source"].sum()
    assert report.tokens["source"] == got.stores["train"].lengths("source").sum()


def test_unknown_and_empty_are_counted(tmp_path: Path, splits: dict[str, Split]) -> None:
    write(splits["valid"].files[0], [{"src": "天 w1 气", "tgt": ""}, {"src": " ", "tgt": "w1"}])
    report = prepared(tmp_path, splits).report["valid"]
    assert report.unknown == {"source": 2, "target": 0}
    assert report.empty == {"source": 1, "target": 1}
    assert report.examples == 2


@pytest.mark.parametrize(("policy", "examples"), [("skip", 60), ("replace", 61)])
def test_bad_lines_are_counted_and_shown(tmp_path: Path, splits: dict[str, Split], policy: str, examples: int) -> None:
    file = splits["train"].files[0]
    file.write_text(file.read_text() + "oops\n")
    got = prepared(tmp_path, splits, on_bad_line=policy)
    report = got.report["train"]
    assert (report.examples, report.bad) == (examples, 1)
    assert report.bad_lines == [f"{file}:61: not valid JSON: Expecting value, column 1"]
    pairs = list(evaluation_pairs(splits["train"], got.tokenizer, on_bad_line=policy))
    assert len(pairs) == len(got.stores["train"]) == examples
    with pytest.raises(DataError, match="train.jsonl:61: not valid JSON"):
        prepared(tmp_path, splits)


def test_evaluation_pairs_are_text(tmp_path: Path, splits: dict[str, Split]) -> None:
    got = prepared(tmp_path, splits)
    assert list(evaluation_pairs(splits["valid"], got.tokenizer)) == [("w1 w2", ["v1 end", "v2"]), ("w3", ["v1"])]
    assert got.tokenizer.decode(got.stores["valid"][0].target.tolist()) == "v1 end"  # the first reference


def test_a_split_without_examples(tmp_path: Path, splits: dict[str, Split]) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match="empty.jsonl: no examples") as caught:
        prepared(tmp_path, {**splits, "valid": Split([empty])})
    assert caught.value.hint == "data.valid needs one at least"
    assert not (tmp_path / "store" / "valid").exists()


def test_missing_files_and_pipes(tmp_path: Path, splits: dict[str, Split]) -> None:
    with pytest.raises(DataError, match="no-such: no such file"):
        prepared(tmp_path, {"train": Split([tmp_path / "no-such"])})
    with pytest.raises(DataError, match=f"{tmp_path}: is a folder, not a file"):
        prepared(tmp_path, {"train": Split([tmp_path])})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a vocabulary cannot be trained on standard input or a pipe"):
        prepared(tmp_path, {"train": Split([tmp_path / "pipe"])})


def test_progress_is_told(tmp_path: Path, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 1200)
    told: list[tuple[str, int]] = []
    prepared(tmp_path, splits, progress=lambda stage, done, total: told.append((stage, done)))
    assert told == [("train", 32), ("train", 60), ("valid", 2)]


def encoded(tmp_path: Path, splits: dict[str, Split], processes: int | None, **limits: int) -> list[Encoded]:
    tokenizer = Tokenizer.load(tmp_path / "store" / "tokenizer")
    coder = Coder.of(tokenizer, Limits(**limits))
    return list(encode_chunks(chunks_of(splits["train"].files), coder, processes=processes))


def test_other_processes_do_the_same(tmp_path: Path, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, splits)
    monkeypatch.setattr(streams, "BLOCK", 300)
    monkeypatch.setattr(encoding, "ALONE", 2)
    one, two = encoded(tmp_path, splits, 1, max_source=6), encoded(tmp_path, splits, 2, max_source=6)
    assert len(one) == len(two) == 8
    for left, right in zip(one, two, strict=True):
        assert left.tally == right.tally
        for name in ("source", "target"):
            for mine, theirs in zip(left.arrays[name], right.arrays[name], strict=True):
                assert mine.tolist() == theirs.tolist()


def test_errors_of_other_processes_keep_their_place(
    tmp_path: Path, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path, splits)
    monkeypatch.setattr(streams, "BLOCK", 300)
    monkeypatch.setattr(encoding, "ALONE", 1)
    file = splits["train"].files[0]
    file.write_text(file.read_text() + '{"src": "a"}\n')
    with pytest.raises(DataError, match="train.jsonl:61: 'tgt' is missing") as caught:
        encoded(tmp_path, splits, 2)
    assert caught.value.hint is not None
    assert "the line has 'src'" in caught.value.hint


def test_look_ahead_is_bounded(tmp_path: Path, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, splits)
    monkeypatch.setattr(streams, "BLOCK", 1)
    monkeypatch.setattr(encoding, "ALONE", 1)
    taken: list[int] = []

    def lines() -> Iterator[object]:
        for number, line in enumerate(chunks_of(splits["train"].files)):
            taken.append(number)
            yield line

    coder = Coder.of(Tokenizer.load(tmp_path / "store" / "tokenizer"), Limits())
    seen = [len(taken) for _ in encode_chunks(lines(), coder, processes=2)]  # type: ignore[arg-type]
    assert len(seen) == 60
    assert all(ahead - done <= 6 for done, ahead in enumerate(seen))
    assert all(a <= b for a, b in pairwise(seen))


def test_a_killed_process_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, *_: object, **__: object) -> None: ...
        def submit(self, *_: object) -> object:
            raise BrokenProcessPool

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(encoding, "ProcessPoolExecutor", Pool)
    with pytest.raises(OutOfMemory, match="a process that was encoding text was killed") as caught:
        list(encoding._shared([[]], None, 2))  # type: ignore[arg-type]
    assert caught.value.hint == "use fewer: --workers 1"


def test_worker_module_is_light() -> None:
    import subprocess
    import sys

    program = "import sys, unilmctl.data.encoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stores_open_by_themselves(tmp_path: Path, splits: dict[str, Split]) -> None:
    got = prepared(tmp_path, splits)
    assert len(Store.open(tmp_path / "store" / "train")) == len(got.stores["train"]) == 60
    assert building.MOST_TEXTS >= 1_000_000
