"""Fine-tuning that ends in a label, through the commands: learning, going on, answering, and what is refused."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import StopAt, contents

from unilmctl.commands import finetune, generate, preprocess, score
from unilmctl.errors import DataError, ModelError, RecipeError, Stopped, UsageError
from unilmctl.fitting import RunReport
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.weights import load_model

RECIPE = """
run: run
seed: 2
data:
  train: {files: [train.jsonl], source: text, target: label}
  valid: {files: [valid.jsonl], source: text, target: label}
model: {architecture: bert, layers: 1, hidden: 32, heads: 2, feedforward: 64, positions: 32, dropout: 0.1}
tokens: {max_source: 20, train: {kind: wordpiece, size: 60}}
finetune: {task: classify, batch_tokens: 160, steps: 40, learning_rate: 5e-3, warmup: 4, precision: float32,
  log_every: 10, evaluate_every: 20, save_every: 20, keep_best_by: accuracy, threads: 1, label_smoothing: 0.0}
"""
GOOD, BAD, REST = ("fine", "lovely", "superb"), ("dull", "awful", "weak"), ("film", "plot", "cast", "song", "scene")


def line(number: int) -> dict[str, Any]:
    mood, rest = (GOOD, BAD)[number % 2], REST[number % 5]
    return {"text": f"a {mood[number % 3]} {rest} and {REST[number // 5 % 5]}", "label": ("pos", "neg")[number % 2]}


def write(name: str, lines: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in lines))


def furnish() -> None:
    """Texts, labels and a recipe in the working folder."""
    write("train.jsonl", [line(number) for number in range(60)])
    write("valid.jsonl", [line(number) for number in range(60, 80)])
    Path("recipe.yaml").write_text(RECIPE)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A furnished folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    furnish()
    return tmp_path


@pytest.fixture(scope="module")
def beginner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model that has hardly begun to learn, for tests of everything else."""
    folder = tmp_path_factory.mktemp("beginner")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        furnish()
        return folder / train("finetune.steps=2", "finetune.warmup=1").run


def train(*settings: str, fresh: bool = False) -> RunReport:
    return finetune.run(recipe="recipe.yaml", settings=settings, fresh=fresh)


def answers(model: Path = Path("run"), **options: Any) -> list[str]:
    generate.run(source="valid.jsonl", model=model, output=Path("out.txt"), **options)
    return Path("out.txt").read_text().splitlines()


def test_a_model_learns_labels_and_says_them() -> None:
    report = train()
    assert report.best is not None
    assert report.best.value == 100
    assert answers() == [line(number)["label"] for number in range(60, 80)]
    first = json.loads(answers(as_json=True)[0])
    assert first["task"] == "classify"
    assert first["label"] == "pos"
    assert first["probabilities"]["pos"] > 0.5
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    evaluation = [entry for entry in RunFolder(report.run).read_log() if entry["event"] == "evaluation"][-1]
    assert evaluation["accuracy"] == 100
    assert evaluation["examples"][0]["output"] == "pos"
    model = load_model(report.run / "checkpoints" / "step-40")
    assert model.encoder.config.head("classify").labels == ("neg", "pos")
    write("train.jsonl", [{**line(number), "label": "pos" if number % 3 else "neg"} for number in range(60)])
    small = ("run=taught", "model.hidden=16", f"tokens.tokenizer={report.run}/checkpoints/step-40", "tokens.train=null")
    taught = train(*small, "finetune.distil={teacher: run, weight: 1.0}", "finetune.steps=60")
    assert taught.best is not None
    assert taught.best.value == 100, "the teacher's labels, not those of the data"
    write("train.jsonl", [{**line(number), "label": "other" if number % 2 else "pos"} for number in range(60)])
    with pytest.raises(
        ModelError, match="run/checkpoints/step-[0-9]+ has no head 'classify' with the labels of the tr"
    ):
        train(*small, "finetune.distil={teacher: run}", "data.valid=null", "finetune.keep_best_by=loss", fresh=True)


def test_a_run_that_was_stopped_ends_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    short = ("finetune.steps=8", "finetune.save_every=4", "finetune.evaluate_every=4")
    train("run=whole", *short)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "__call__", StopAt(7, signal.SIGTERM).asked_by)
        with pytest.raises(Stopped):
            train(*short)
    train(*short)
    assert contents(Path("run/checkpoints/step-8")) == contents(Path("whole/checkpoints/step-8"))


def test_adapters_and_a_head_learn_labels(beginner: Path) -> None:
    base = beginner / "checkpoints/step-2"
    lines = RECIPE.replace(", train: {kind: wordpiece, size: 60}", "").splitlines()
    begun = [f"model: {{init: {base}}}" if one.startswith("model:") else one for one in lines]
    Path("recipe.yaml").write_text("\n".join(begun))
    report = train("finetune.lora={rank: 4, targets: [qkv, inner]}", "finetune.learning_rate=2e-2")
    assert report.best is not None
    assert report.best.value == 100
    assert answers() == [line(number)["label"] for number in range(60, 80)]
    before, after = (load_model(path).encoder.state_dict() for path in (base, report.run / "checkpoints/step-40"))
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.startswith("layers.")} == {
        "layers.0.attention.qkv.weight",
        "layers.0.inner.weight",
    }
    assert {name.partition(".")[0] for name in changed} == {"layers", "pooler", "extra"}
    assert (report.run / "checkpoints/step-40/adapter/adapter_model.safetensors").exists()


def test_two_texts_and_a_number() -> None:
    alike = [n % 5 == n * 2 % 5 for n in range(50)]
    texts = [{"a": f"the {REST[n % 5]}", "b": f"a {REST[n * 2 % 5]}"} for n in range(50)]
    pairs = [{**text, "y": same - 2.5} for text, same in zip(texts, alike, strict=True)]
    write("train.jsonl", pairs)
    write("valid.jsonl", pairs[:10])
    fields = [f"data.{split}.{key}" for split in ("train", "valid") for key in ("source=a", "second=b", "target=y")]
    report = train("finetune.task=regress", "finetune.keep_best_by=pearson", "finetune.steps=60", *fields)
    assert report.best is not None
    assert report.best.value > 90
    said = [float(number) for number in answers()]
    assert min(said[0], said[5]) > max(said[1:5] + said[6:])
    assert json.loads(answers(as_json=True)[0])["label"] == pytest.approx(said[0])


def test_lines_without_text_and_bad_lines_have_their_line_of_output(beginner: Path) -> None:
    Path("valid.jsonl").write_text('{"text": "a fine film"}\n{oops\n{"text": ""}\n{"text": "dull"}\n')
    found = answers(beginner, on_bad_line="skip")
    assert [bool(one) for one in found] == [True, False, False, True]
    assert "not valid JSON" in json.loads(answers(beginner, on_bad_line="skip", as_json=True)[1])["error"]
    with pytest.raises(DataError, match="valid.jsonl:2: not valid JSON"):
        answers(beginner)


def test_a_label_that_training_does_not_know_is_named() -> None:
    write("valid.jsonl", [line(0), {"text": "so so", "label": "meh"}])
    with pytest.raises(DataError, match="valid.jsonl:2: the training data has no label 'meh'"):
        train()
    prepared = preprocess.run(recipe="recipe.yaml", settings=["data.on_bad_line=skip"])
    assert prepared.report["valid"].bad == 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('{"text": "a"}', r"train.jsonl:1: 'label' is missing"),
        ('{"text": "a", "label": ["x"]}', r"train.jsonl:1: 'label' must be a label, text on one line or a number"),
        ('{"label": "x"}', r"train.jsonl:1: 'text' is missing"),
    ],
)
def test_bad_lines_of_training_data(broken: str, message: str) -> None:
    Path("train.jsonl").write_text(broken + "\n")
    with pytest.raises(DataError, match=message):
        train()


def test_what_cannot_be_learnt_is_refused() -> None:
    write("train.jsonl", [{"text": "a", "label": 1}] * 4)
    with pytest.raises(RecipeError, match="data.train.target: all lines have the label '1'"):
        train("data.valid=null", "finetune.keep_best_by=loss")
    write("train.jsonl", [{"text": "a", "label": "x"}] * 4)
    with pytest.raises(DataError, match="train.jsonl:1: 'x' is not a number"):
        train("finetune.task=regress", "data.valid=null", "finetune.keep_best_by=loss")
    with pytest.raises(RecipeError, match=r"finetune.distil: the model learns to regress from the data alone"):
        train("finetune.task=regress", "finetune.distil={teacher: run}")
    with pytest.raises(RecipeError, match=r"second text is for tasks with labels"):
        train("finetune.task=generate", "data.train.second=x")


def test_what_a_label_has_no_use_for_is_refused(beginner: Path) -> None:
    with pytest.raises(UsageError, match="--beam is for writing, the task 'classify' gives labels"):
        answers(beginner, options={"beam": 3})
    with pytest.raises(UsageError, match="--prefix is for writing"):
        answers(beginner, prefix="x")
    with pytest.raises(UsageError, match="the model has no task 'rank'"):
        answers(beginner, task="rank")
    with pytest.raises(UsageError, match="the model was trained for classify, not to write"):
        score.run(source="valid.jsonl", model=beginner)
    assert len(answers(beginner, task="classify", options={"batch_tokens": 30, "dtype": "bfloat16"})) == 20
