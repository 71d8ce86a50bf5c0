"""ELECTRA from a recipe: both models learn, and go on as if never stopped or from a folder that holds both."""

import signal
from pathlib import Path

import pytest
from stopping import StopAt, contents
from text_runs import entries, prepared, train

from unilmctl.errors import Stopped
from unilmctl.runs import StopSignals, model_folder
from unilmctl.weights import load_model
from unilmctl.weights.folder import load_whole

SMALL = ("model.architecture=electra", "model.embedding=16", "pretrain.generator_size=0.5")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with text and a recipe, in which the test runs."""
    prepared(tmp_path, "[{objective: replaced, random: 0, keep: 0.15}]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_generator_and_detector_learn(place: Path) -> None:
    schedule = ("pretrain.evaluate_every=40", "pretrain.save_every=40", "pretrain.log_every=4", "model.dropout=0")
    report = train("pretrain.steps=40", "pretrain.batch_tokens=800", "pretrain.accumulate=1", *schedule, *SMALL)
    first, *_, last = (entry["parts"] for entry in entries(report, "steps"))
    assert last["replaced/lm"]["loss"] < first["replaced/lm"]["loss"] - 0.3
    assert last["replaced/replaced"]["loss"] < first["replaced/replaced"]["loss"] - 0.1
    (measured,) = entries(report, "evaluation")
    losses = {name: part["loss"] for name, part in measured["parts"].items()}
    assert measured["loss"] == pytest.approx(losses["replaced/lm"] + 50 * losses["replaced/replaced"])
    folder = model_folder(report.run)
    encoder, card = load_model(folder)
    assert (encoder.generator, card.head_trained, encoder.config.embedding) == (None, False, 16)
    generator, card = load_model(folder / "generator")
    assert (generator.config.hidden, generator.config.heads, card.head_trained) == (16, 1, True)


@pytest.mark.parametrize("question", [3, 17])
def test_a_stop_leaves_no_trace(question: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(*SMALL, "pretrain.average_last=2")
    expected = contents(place / "run")
    assert "checkpoints/average/generator/model.safetensors" in expected
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", StopAt(question, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            train(*SMALL, "pretrain.average_last=2", fresh=True)
    train(*SMALL, "pretrain.average_last=2")
    assert contents(place / "run") == expected


def test_a_model_with_its_generator_is_trained_on(place: Path) -> None:
    first = load_whole(train(*SMALL).run / "checkpoints/step-7").encoder
    (place / "run").rename(place / "old")
    shape = [f"model.{key}=null" for key in ("architecture", "layers", "hidden", "heads", "feedforward", "positions")]
    report = train("model.init=old/checkpoints/step-7", "tokens.train=null", "pretrain.learning_rate=1e-9", *shape)
    second = load_whole(report.run / "checkpoints/step-7").encoder
    assert second.config == first.config
    name = "generator.layers.0.inner.weight"
    assert (second.state_dict()[name] - first.state_dict()[name]).abs().max() < 1e-6
