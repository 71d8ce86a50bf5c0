"""`pretrain` from text to a model that `finetune` starts from: learning, stopping and going on, several objectives."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from stopping import StopAt, contents
from text_runs import RECIPE, WORDS, entries, prepared, text, train

from unilmctl.commands import finetune, generate, preprocess, pretrain
from unilmctl.errors import RecipeError, Stopped
from unilmctl.runs import RunFolder, StopSignals, model_folder
from unilmctl.weights import load_model

UNILM = (
    "pretrain.mix=[{objective: bidirectional, weight: 1/3, pair: next-sentence, segments: [0, 1]}, "
    "{objective: seq2seq, weight: 1/3, segments: [4, 5]}, {objective: left-to-right, weight: 1/6, segments: [2, 2]}, "
    "{objective: right-to-left, weight: 1/6, segments: [3, 3]}]",
    "pretrain.head_weights.next-sentence=0.5",
)
MLM = "[{objective: bidirectional}]"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with text and a recipe, in which the test runs."""
    prepared(tmp_path, MLM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_leaves_a_model_that_has_learnt(place: Path) -> None:
    schedule = ("pretrain.evaluate_every=80", "pretrain.save_every=160", "pretrain.log_every=80")
    size = ("pretrain.batch_tokens=800", "pretrain.accumulate=1", "model.dropout=0", "model.attention_dropout=0")
    report = train("pretrain.steps=160", *schedule, *size)
    first, last = (entry["loss"] for entry in entries(report, "evaluation"))
    assert last < first
    assert last < math.log(len(WORDS)) - 0.3, "better than knowing the words alone: it reads their neighbours"
    assert report.best is not None
    assert (report.steps, report.criterion, report.best.value) == (160, "loss", last)
    encoder, card = load_model(model_folder(report.run))
    assert (encoder.config.positions, card.head_trained, card.max_source) == (32, True, None)
    assert "train: text" in (report.run / "report.html").read_text()
    assert "finetune:" not in (report.run / "recipe.yaml").read_text()


@pytest.mark.parametrize("question", [3, 14, 17])
def test_a_stop_leaves_no_trace(question: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    expected = contents(place / "run")
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", StopAt(question, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            train(fresh=True)
    train()
    assert contents(place / "run") == expected


def test_fine_tuning_starts_from_it(place: Path) -> None:
    model_folder(train().run).rename(place / "base")
    pairs = [{"src": line, "tgt": line} for line in text(4).splitlines() if line]
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (place / "tune.yaml").write_text(
        "run: tuned\ndata: {train: {files: [pairs.jsonl]}}\nmodel: {init: base}\n"
        "tokens: {max_source: 12, max_target: 10}\nfinetune: {steps: 2, warmup: 1, threads: 1, precision: float32}\n"
    )
    report = finetune.run(recipe="tune.yaml")
    tuned = load_file(RunFolder(report.run).checkpoint(2) / "model.safetensors")
    assert tuned.keys() == load_file(place / "base" / "model.safetensors").keys()


def test_each_command_refuses_the_recipe_of_the_other(place: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        finetune.run(recipe="recipe.yaml")
    assert caught.value.message == "recipe.yaml: this recipe pre-trains"
    assert caught.value.hint == "start it so: unilmctl pretrain recipe.yaml"
    (place / "pairs.yaml").write_text("data: {train: {files: [a]}}\nmodel: {init: m}\n")
    with pytest.raises(RecipeError) as caught:
        pretrain.run(recipe="pairs.yaml")
    assert caught.value.message == "pairs.yaml: there is no section pretrain"
    assert caught.value.hint == "unilmctl finetune trains on pairs"


STAGES = (
    "pretrain.mix=null",
    "pretrain.stages=[{steps: 3, mix: [{objective: bidirectional}]}, "
    "{steps: 4, mix: [{objective: bidirectional}, {objective: seq2seq, weight: 1/2}]}]",
)


@pytest.mark.parametrize("question", [8, 9, 14, 15, 17])
def test_stages_go_on_as_if_never_stopped(question: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = train(*STAGES)
    epochs = [entry["epoch"] for entry in entries(report, "steps")]
    assert epochs[-1] > epochs[0]
    assert [entry["step"] for entry in entries(report, "evaluation")] == [3, 6, 7]
    expected = contents(place / "run")
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", StopAt(question, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            train(*STAGES, fresh=True)
    train(*STAGES)
    assert contents(place / "run") == expected


def test_preprocess_counts_documents_and_sentences(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = preprocess.run(recipe="recipe.yaml", workers=1)
    shown = capsys.readouterr()
    assert len(prepared.stores["train"]) == 20
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[1] == "split documents sentences tokens mean longest empty unknown bad lines"
    assert lines[2].startswith("train 20 80 ")
    assert "train: length of sentences, in tokens" in lines
    train()
    assert "no token store" not in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_that_share_the_model_take_the_steps_that_one_takes(place: Path) -> None:
    settings = (*UNILM, "model.dropout=0", "model.attention_dropout=0", "pretrain.log_every=1")
    alone = train("run=alone", *settings)
    sets = [part for one in ("run=both", "pretrain.sharding=full", *settings) for part in ("--set", one)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "unilmctl", "pretrain", "recipe.yaml", *sets]
    environment = {**os.environ, "PYTHONPATH": str(Path(pretrain.__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    both = RunFolder(place / "both").read_log()
    for here, there in zip(RunFolder(alone.run).read_log(), both, strict=True):
        assert here["step"] == there["step"]
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-4)
        for name, part in here["parts"].items():
            assert part["labels"] == there["parts"][name]["labels"]
            assert part["loss"] == pytest.approx(there["parts"][name]["loss"], rel=1e-4)


def test_four_objectives_share_every_batch(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = train(*UNILM, "pretrain.batch_tokens=800")
    assert "segments grown from 2 to 6: copied: 2 from 0, 3 from 0, 4 from 0, 5 from 1" in capsys.readouterr().err
    encoder, card = load_model(model_folder(report.run))
    assert (encoder.config.segments, encoder.config.pair_head) == (6, True)
    assert (card.objective, card.source_segment, card.target_segment) == ("masked", 4, 5)
    assert card.fills == {"bidirectional": [0, 1]}
    names = ["bidirectional/lm", "bidirectional/next-sentence", "left-to-right/lm", "right-to-left/lm", "seq2seq/lm"]
    logged = [*entries(report, "steps"), *entries(report, "evaluation")]
    assert sorted({name for entry in logged for name in entry["parts"]}) == names
    for entry in logged:
        heads: dict[str, list[float]] = {}
        for name, part in entry["parts"].items():
            loss, labels = heads.setdefault(name.split("/")[1], [0.0, 0])
            heads[name.split("/")[1]] = [loss + part["loss"] * part["labels"], labels + part["labels"]]
            assert 0 <= part["accuracy"] <= 1
        weighed = {name: loss / labels for name, (loss, labels) in heads.items()}
        if entry["event"] == "evaluation":
            assert entry["loss"] == pytest.approx(weighed["lm"] + 0.5 * weighed["next-sentence"])
    page = (report.run / "report.html").read_text()
    assert all(f"{name}: {figure}" in page for name in names for figure in ("loss", "accuracy"))
    assert "labels" not in page.split("What the loss is made of")[1].split("<h2>")[0]


def test_a_row_of_the_recipe_is_learnt_and_one_that_shows_its_answers_is_not(place: Path) -> None:
    row = "rows: [{name: mine, parts: [{take: text, time: TIME, predict: next}]}]\n"
    recipe = RECIPE.replace("MIX", "[{objective: custom, row: mine}]")
    (place / "recipe.yaml").write_text(recipe + row.replace("TIME", "i"))
    report = train("pretrain.steps=60", "pretrain.evaluate_every=30", "pretrain.save_every=60")
    first, last = (entry["loss"] for entry in entries(report, "evaluation"))
    assert last < first < 4.5
    (place / "recipe.yaml").write_text(recipe + row.replace("TIME", "0"))
    (place / "train.txt").unlink()  # what is wrong is found before the text is looked at
    with pytest.raises(RecipeError) as caught:
        train(fresh=True)
    assert caught.value.message.startswith(
        "recipe.yaml:9:8: row 'mine': part 1 (take text): what it predicts at time 0 stands in part 1"
    )


def test_a_model_of_running_text_goes_on_with_a_line(place: Path) -> None:
    settings = ("pretrain.steps=40", "pretrain.accumulate=1", "model.dropout=0", "model.attention_dropout=0")
    report = train(*settings, "pretrain.mix=[{objective: next-token}]", "pretrain.batch_tokens=800")
    beginnings = [" ".join((WORDS * 2)[first : first + 4]) for first in (0, 5, 9)]
    (place / "lines.txt").write_text("".join(f"{beginning}\n" for beginning in beginnings))
    run = {"source": "lines.txt", "output": place / "out.txt", "options": {"search": "greedy", "max_length": 6}}
    generate.run(model=model_folder(report.run), **run)
    following = [line.split()[0] for line in (place / "out.txt").read_text().splitlines()]
    assert following == [(WORDS * 2)[first + 4] for first in (0, 5, 9)]
