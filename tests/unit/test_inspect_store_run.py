"""`unilmctl inspect store` and `unilmctl inspect run`."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.commands.inspect import run as inspect_run
from unilmctl.commands.inspect import store as inspect_store
from unilmctl.data.lengths import histogram
from unilmctl.data.store import StoreWriter
from unilmctl.errors import DataError
from unilmctl.runs import RunFolder


def write_store(folder: Path, lengths: list[int]) -> None:
    with StoreWriter(folder, ("source", "target"), {}) as writer:
        for length in lengths:
            writer.add(source=list(range(length)), target=[1, 2])


def test_a_store_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "train", [1, 2, 3, 4, 10])
    inspect_store.run(folder=tmp_path / "train", as_json=True)
    (entry,) = json.loads(capsys.readouterr().out).values()
    source = entry["source"]
    assert (source["examples"], source["tokens"], source["shortest"], source["longest"]) == (5, 20, 1, 10)
    assert (source["50%"], source["90%"]) == (3, 10)
    assert entry["target"]["histogram"] == [[2, 2, 5]]


def test_every_store_below_a_folder_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "store" / "train", [3, 4])
    write_store(tmp_path / "store" / "valid", [5])
    inspect_store.run(folder=tmp_path)
    shown = capsys.readouterr().out
    assert f"{tmp_path}/store/train: length of source" in shown
    assert f"{tmp_path}/store/valid: length of target" in shown
    assert "█" in shown


def test_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no token store"):
        inspect_store.run(folder=tmp_path)


def test_an_empty_store_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "train", [])
    inspect_store.run(folder=tmp_path / "train")
    assert "length of source" in capsys.readouterr().out


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_a_histogram_counts_every_length_once_in_its_stretch(lengths: list[int], bars: int) -> None:
    found = histogram(np.array(lengths), bars=bars)
    assert len(found) <= bars
    assert sum(count for _, _, count in found) == len(lengths)
    for first, last, count in found:
        assert count == sum(first <= length <= last for length in lengths)


def test_a_run_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"event": "steps", "step": 10, "loss": 4.0, "done": True},
        {"event": "steps", "step": 20, "loss": 2.0, "done": True},
        {"event": "evaluation", "step": 20, "scores": {"bleu": 31.5}},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"event": "ste')
    inspect_run.run(folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("20 steps logged; best checkpoint: none yet")
    assert lines[2].split() == ["steps.loss", "4", "2", "2", "4", "█▁"]
    assert lines[3].split() == ["evaluation.scores.bleu", "31.5", "31.5", "31.5", "31.5", "▁"]
    inspect_run.run(folder=tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["steps.loss"] == {"steps": [10, 20], "values": [4.0, 2.0]}


def test_checkpoints_are_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    run.log({"event": "steps", "step": 9, "loss": 4.0})
    for step in (3, 6, 9):
        run.publish(f"step-{step}", lambda folder: (folder / "model").write_text("x") and None)
    (run.checkpoint(6) / "model").write_text("y")
    inspect_run.run(folder=tmp_path)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "checkpoints that are whole: step-3, step-9"
    assert "warning: step-6 is broken: " in shown.err
    assert "its contents have changed" in shown.err


def test_a_run_without_a_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no log\.jsonl"):
        inspect_run.run(folder=tmp_path)
