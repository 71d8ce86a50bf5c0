"""`finetune` from a recipe to a finished run: learning, stopping and going on, changed recipes, averages."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stopping import StopAt, contents

from unilmctl.commands import finetune
from unilmctl.errors import DataError, RecipeError, Stopped, UserError
from unilmctl.files import verify_manifest
from unilmctl.fitting import RunReport
from unilmctl.generation import GenerateOptions, Generator
from unilmctl.runs import RunFolder, StopSignals, alone_in, model_folder
from unilmctl.tokens import Tokenizer
from unilmctl.weights import load_model

WORDS = ("red", "green", "blue", "one", "two", "three", "four", "old", "new", "big", "small", "cat", "dog", "bird")
RECIPE = """
run: run
seed: 3
data: {train: {files: [train.jsonl]}, valid: {files: [valid.jsonl]}}
model: {architecture: bert, layers: 2, hidden: 32, heads: 2, feedforward: 64, positions: 40}
tokens: {max_source: 16, max_target: 12, train: {kind: wordpiece, size: 60}}
finetune: {objective: OBJECTIVE, batch_tokens: 240, steps: 7, learning_rate: 5e-3, warmup: 2, accumulate: 2,
  precision: float32, log_every: 2, evaluate_every: 3, save_every: 3, keep_last: 2, threads: 1}
generate: {search: greedy}
evaluate: {metrics: [bleu]}
"""


def pairs(count: int) -> list[dict[str, str]]:
    """Sources of four words; the target is a word by word answer to them, in reverse order."""
    made = []
    for index in range(count):
        words = [WORDS[(index * 7 + place * 5 + index * place) % len(WORDS)] for place in range(4)]
        made.append({"src": " ".join(words), "tgt": " ".join(["the", *reversed(words)])})
    return made


def write(folder: Path, name: str, lines: list[dict[str, Any]]) -> None:
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a recipe, in which the test runs."""
    write(tmp_path, "train.jsonl", pairs(32))
    write(tmp_path, "valid.jsonl", [{"src": pair["src"], "refs": [pair["tgt"], "the"]} for pair in pairs(6)])
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("OBJECTIVE", "pseudo"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(*settings: str, fresh: bool = False) -> RunReport:
    return finetune.run(recipe="recipe.yaml", settings=settings, fresh=fresh)


@pytest.mark.parametrize("objective", ["pseudo", "masked", "causal"])
def test_a_tiny_model_learns_its_data_by_heart(objective: str, place: Path) -> None:
    report = tune(
        f"finetune.objective={objective}",
        "finetune.batch_tokens=2000",
        "finetune.accumulate=1",
        "finetune.steps=220",
        "finetune.warmup=20",
        "finetune.learning_rate=1e-2",
        "finetune.evaluate_every=220",
        "finetune.save_every=220",
        "model.dropout=0",
        "model.attention_dropout=0",
        "finetune.label_smoothing=0",
    )
    folder = model_folder(report.run)
    (encoder, card), tokenizer = load_model(folder), Tokenizer.load(folder)
    assert (card.objective, card.max_target, card.head_trained) == (objective, 12, True)
    options = GenerateOptions().updated({**card.generate, "search": "greedy"})
    generator = Generator(encoder, card, tokenizer, options)
    sources = tokenizer.encode_batch([pair["src"] for pair in pairs(32)])
    written = [tokenizer.decode(hypotheses[0].ids) for hypotheses in generator.generate(sources)]
    wrong = [(found, pair["tgt"]) for found, pair in zip(written, pairs(32), strict=True) if found != pair["tgt"]]
    assert wrong == []


def test_a_run_leaves_what_it_promises(place: Path) -> None:
    report = tune()
    run = RunFolder(report.run)
    assert report.steps == 7
    assert run.steps() == [6, 7]
    assert (place / "latest").read_text() == "run\n"
    assert run.pointed("latest") == run.checkpoint(7)
    assert report.best is not None
    assert run.pointed("best") == run.checkpoint(report.best.name)
    for step in run.steps():
        assert verify_manifest(run.checkpoint(step)) == []
        assert (run.checkpoint(step) / "tokenizer.json").exists() or (run.checkpoint(step) / "vocab.txt").exists()
    entries = run.read_log()
    assert [entry["step"] for entry in entries if entry["event"] == "steps"] == [2, 4, 6, 7]
    evaluations = [entry for entry in entries if entry["event"] == "evaluation"]
    assert [entry["step"] for entry in evaluations] == [3, 6, 7]
    assert all({"loss", "bleu", "examples"} <= entry.keys() for entry in evaluations)
    assert min(entry["loss"] for entry in evaluations) == report.best.value
    assert "steps: 7" in run.recipe.read_text()
    shown = evaluations[-1]["examples"][0]
    assert shown["source"] == pairs(1)[0]["src"]
    page = (run.folder / "report.html").read_text()
    assert all(text in page for text in (shown["source"], shown["output"], "train: target", "step 7"))


ROW = """rows:
  - name: mine
    parts:
      - {take: source, of: rest, time: 0}
      - {take: source, of: last, time: 0, predict: next}
      - {take: target, of: rest, time: i+1, predict: next}
"""


def test_a_row_of_the_recipe_is_learnt_as_the_same_row_of_ours(place: Path) -> None:
    settings = ("finetune.objective=causal", "finetune.separator_in=source")
    ours = contents(tune(*settings).run)
    (place / "recipe.yaml").write_text(RECIPE.replace("OBJECTIVE", "causal, row: mine") + ROW)
    theirs = contents(tune(*settings, fresh=True).run)
    assert theirs["checkpoints/step-7/model.safetensors"] == ours["checkpoints/step-7/model.safetensors"]
    assert load_model(model_folder(Path("run"))).card.objective == "causal"
    (place / "recipe.yaml").write_text(RECIPE.replace("OBJECTIVE", "causal, row: mine") + ROW.replace("i+1", "0"))
    (place / "train.jsonl").unlink()  # what is wrong is found before the text is looked at
    with pytest.raises(RecipeError) as caught:
        tune(*settings, fresh=True)
    assert caught.value.message.startswith("recipe.yaml:12:5: row 'mine': part 2 (take source): what it predicts")


def test_a_finished_run_is_left_as_it_is(place: Path) -> None:
    tune()
    before = contents(place / "run")
    assert tune().steps == 7
    assert contents(place / "run") == before


@pytest.mark.parametrize("question", [1, 2, 3, 5, 9, 13, 14, 15, 17, 20, 26, 30])
def test_stopped_and_gone_on_is_the_same_as_never_stopped(
    question: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["finetune.average_last=2"]
    tune(*settings)
    expected = contents(place / "run")
    stop = StopAt(question, signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", stop.asked_by)
        with pytest.raises(Stopped) as caught:
            tune(*settings, fresh=True)
    assert caught.value.exit_code == 75
    assert caught.value.hint == "run the same command again to go on"
    torch.manual_seed(question)
    tune(*settings)
    assert contents(place / "run") == expected


def test_a_run_that_was_killed_before_its_first_checkpoint_logs_nothing_twice(place: Path) -> None:
    tune()
    expected = contents(place / "run")
    shutil.rmtree(place / "run" / "checkpoints")
    for pointer in ("best", "latest"):
        (place / "run" / pointer).unlink()
    tune()
    assert contents(place / "run") == expected


def test_an_interrupt_exits_130(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StopSignals, "__call__", StopAt(4, signal.SIGINT).asked_by)
    with pytest.raises(Stopped) as caught:
        tune()
    assert caught.value.exit_code == 130
    assert caught.value.message == "stopped after step 1; all is saved in run"


def test_several_stops_are_the_same_as_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune()
    expected = contents(place / "run")
    codes = []
    while True:
        stop = StopAt(8, signal.SIGINT)
        with monkeypatch.context() as patched, suppress(Stopped):
            patched.setattr(StopSignals, "__call__", stop.asked_by)
            tune(fresh=not codes)
            break
        codes.append(stop.asked)
    assert len(codes) >= 3
    assert contents(place / "run") == expected


def test_a_broken_newest_checkpoint_is_passed_over(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune()
    expected = contents(place / "run")
    path = place / "run" / "checkpoints" / "step-7" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    tune()
    shown = capsys.readouterr().err
    assert "warning: a checkpoint is broken and left out: " in shown
    assert "going on from step 6" in shown
    assert contents(place / "run") == expected


def test_another_recipe_does_not_go_on(place: Path) -> None:
    tune()
    with pytest.raises(
        RecipeError, match=r"run holds a run of a different recipe: finetune\.learning_rate was 0\.005, is"
    ):
        tune("finetune.learning_rate=1e-3")
    assert tune("finetune.learning_rate=1e-3", fresh=True).steps == 7
    assert tune("finetune.learning_rate=1e-3", "finetune.steps=9").steps == 9


def test_a_mistake_before_the_first_step_binds_nobody(place: Path) -> None:
    with pytest.raises(RecipeError, match="'layer' is no part of the model"):
        tune("finetune.freeze=[layer]")
    assert tune("finetune.freeze=[layers.0]").steps == 7


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_that_goes_on_elsewhere_is_left_alone(place: Path, *, fresh: bool) -> None:
    tune()
    before = contents(place / "run")
    with alone_in(place / "run"), pytest.raises(UserError, match=f"^run: process {os.getpid()} on .* is training here"):
        tune(fresh=fresh)
    assert contents(place / "run") == before


def test_changed_training_data_does_not_go_on(place: Path) -> None:
    tune()
    write(place, "train.jsonl", pairs(33))
    with pytest.raises(DataError, match="the training data has changed since step-7 of run"):
        tune("finetune.steps=9")


def test_the_average_of_the_last_checkpoints_is_written_and_measured(place: Path) -> None:
    report = tune("finetune.average_last=2")
    run = RunFolder(report.run)
    average, parts = run.checkpoint("average"), [run.checkpoint(step) for step in (6, 7)]
    assert verify_manifest(average) == []
    found = load_model(average).encoder.state_dict()
    states = [load_model(part).encoder.state_dict() for part in parts]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2)
    (entry,) = [entry for entry in run.read_log() if entry["event"] == "average"]
    if report.best is not None and report.best.name == "average":
        assert report.best.value == entry["loss"]
    else:
        assert report.best is not None
        assert report.best.value <= entry["loss"]


def test_best_by_a_score_and_without_validation(place: Path) -> None:
    report = tune("finetune.keep_best_by=bleu")
    values = [entry["bleu"] for entry in RunFolder(report.run).read_log() if entry["event"] == "evaluation"]
    assert report.best is not None
    assert report.best.value == max(values)
    report = tune("data.valid=null", "run=other")
    assert report.best is None
    assert model_folder(report.run).name == "step-7"


def test_a_head_that_was_never_trained_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = model_folder(tune().run)
    card = json.loads((first / "unilmctl.json").read_text())
    (first / "unilmctl.json").write_text(json.dumps({**card, "head_trained": False}))
    (place / "recipe.yaml").write_text(
        "run: second\ndata: {train: {files: [train.jsonl]}}\n"
        f"model: {{init: {first}}}\ntokens: {{max_source: 30, max_target: 30}}\n"
        "finetune: {steps: 1, warmup: 0, batch_tokens: 400, threads: 1}\n"
    )
    tune()
    shown = capsys.readouterr().err
    assert f"warning: {first}: its language-model head was never trained" in shown
    assert "warning: positions grown from 40 to 60" in shown
    assert load_model(model_folder(place / "second")).card.head_trained


def test_sigterm_saves_and_exits_75_and_the_run_goes_on(place: Path) -> None:
    command = [sys.executable, "-m", "unilmctl", "finetune", "recipe.yaml", "--set", "finetune.steps=100000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(finetune.__file__).parents[3])}
    process = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 90
    while not (place / "run" / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 75, shown
    assert "all is saved in run" in shown
    step = RunFolder(place / "run").steps()[-1]
    assert RunFolder(place / "run").newest()[1] == []
    assert tune(f"finetune.steps={step + 1}").steps == step + 1


LORA = ("finetune.lora={rank: 2, dropout: 0.1}",)
EMA = ("finetune.ema=0.9",)
TAUGHT = ("finetune.distil={teacher: base, temperature: 1.5}",)


@pytest.fixture
def base(place: Path) -> Path:
    """A recipe that starts from a model that has learnt something, in the folder `base`."""
    model_folder(tune("run=first").run).rename(place / "base")
    lines = (place / "recipe.yaml").read_text().splitlines()
    begun = {"model": "model: {init: base, dropout: 0.1}", "tokens": "tokens: {max_source: 16, max_target: 12}"}
    (place / "recipe.yaml").write_text("\n".join(begun.get(line.split(":")[0], line) for line in lines))
    return place


@pytest.mark.parametrize("question", [3, 14, 17])
@pytest.mark.parametrize("settings", [EMA, LORA, (*LORA, *EMA), TAUGHT], ids=["averages", "adapters", "both", "taught"])
def test_small_ways_of_training_go_on_as_if_never_stopped(
    settings: tuple[str, ...], question: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(*settings)
    expected = contents(base / "run")
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", StopAt(question, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            tune(*settings, fresh=True)
    tune(*settings)
    assert contents(base / "run") == expected


def test_averages_are_the_model_and_the_weights_lie_beside(place: Path) -> None:
    tune(*EMA)
    folder = RunFolder(place / "run").checkpoint(7)
    name = "layers.0.inner.weight"
    kept = load_file(folder / "training.safetensors")
    shown = load_model(folder).encoder.state_dict()[name]
    assert torch.equal(shown, kept[f"average.{name}"])
    assert not torch.equal(shown, kept[f"weights.{name}"])
    tune("run=plain")
    plain = load_model(RunFolder(place / "plain").checkpoint(7)).encoder.state_dict()
    assert torch.equal(plain[name], kept[f"weights.{name}"])


def test_adapters_are_merged_into_the_model_and_saved_for_peft(base: Path) -> None:
    report = tune(*LORA)
    folder = RunFolder(report.run).checkpoint(7)
    before, after = (load_model(place).encoder.state_dict() for place in (base / "base", folder))
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    linears = ("attention.qkv", "attention.output", "inner", "outer")
    assert changed == {f"layers.{layer}.{name}.weight" for layer in range(2) for name in linears}
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    inner = "base_model.model.bert.encoder.layer.1.intermediate.dense"
    added = 16 / 2 * tensors[f"{inner}.lora_B.weight"] @ tensors[f"{inner}.lora_A.weight"]
    name = "layers.1.inner.weight"
    torch.testing.assert_close(after[name], before[name] + added)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 16.0, "base")
    moments = {name for name in load_file(folder / "training.safetensors") if name.startswith("exp_avg.")}
    assert {name.rsplit(".", 1)[1] for name in moments} == {"up", "down"}


def test_tensorboard_has_what_the_log_has_when_a_run_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", StopAt(17, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            tune("finetune.tensorboard=true")
    run = RunFolder(tune("finetune.tensorboard=true").run)
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    logged = {entry["step"]: entry["loss"] for entry in run.read_log() if entry["event"] == "steps"}
    found = {event.step: event.value for event in events.Scalars("steps/loss")}
    assert found == pytest.approx(logged)


EVERY_STEP = ("finetune.steps=8", "finetune.save_every=1", "finetune.keep_last=8", "data.valid=null")


@pytest.mark.parametrize("settings", [("finetune.pack=40",), (*LORA, *EMA)], ids=["packed", "adapters"])
def test_a_run_that_stops_after_every_step_leaves_the_bits_of_one_that_never_did(
    settings: tuple[str, ...], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(*EVERY_STEP, *settings)
    expected = contents(base / "run")
    positions = [found[0]["position"] for name, found in expected.items() if name.endswith("state.json")]
    assert len(positions) == 8
    assert any(batch for _, _, batch, _ in positions), "some steps end within an epoch"
    for step in range(1, 8):
        with monkeypatch.context() as patched:
            patched.setattr(StopSignals, "__call__", StopAt(4, signal.SIGTERM).asked_by)  # after its two batches
            with pytest.raises(Stopped, match=f"after step {step};"):
                tune(*EVERY_STEP, *settings, fresh=step == 1)
        torch.manual_seed(step)
    tune(*EVERY_STEP, *settings)
    assert contents(base / "run") == expected
