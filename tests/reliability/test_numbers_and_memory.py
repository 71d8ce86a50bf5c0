"""Numbers that are none never enter the weights, and work that memory does not hold is done in smaller parts.

A step whose loss or gradient is no number is skipped, its examples are written down, and too many of them end training.
A part of a step that is too large is cut in two until it fits: the step is the same up to the order of a sum. Errors
are put where torch would raise them: before, in the middle of, and after the gradient of a part.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Trial, contents, furnish
from tiny_training import feed_of, optimizer_of, options_of, tiny_encoder, weights

from unilmctl import cli
from unilmctl.commands import generate, score
from unilmctl.errors import NumericError, OutOfMemory
from unilmctl.model import Encoder
from unilmctl.rows import Batch
from unilmctl.training import Feed, Step, loop, train

CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS: dict[str, Callable[[], Exception]] = {
    "python": MemoryError,
    "cpu": lambda: RuntimeError(CPU),
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory."),
}
Score = Callable[..., Any]
LONG = pytest.mark.reliability


def failing(score: Score, when: Callable[[int, Batch], bool], error: Callable[[], Exception], after: bool) -> Score:
    """`score` that raises where it is told to, with the gradient of the part added up already, or not yet."""
    calls = 0

    def scored(encoder: Encoder, batch: Batch, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if when(calls, batch):
            if after:
                score(encoder, batch, *rest)
            raise error()
        return score(encoder, batch, *rest)

    return scored


def run(feed: Feed[Any], **options: Any) -> tuple[Encoder, list[Step]]:
    encoder, chosen = tiny_encoder(), options_of(steps=3, warmup=0, **options)
    return encoder, list(train(encoder, optimizer_of(encoder, chosen), feed, chosen))


def same_steps(left: tuple[Encoder, list[Step]], right: tuple[Encoder, list[Step]]) -> None:
    for one, other in zip(left[1], right[1], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert (one.labels, one.tokens, one.after) == (other.labels, other.tokens, other.after)
    for name, tensor in weights(left[0]).items():
        torch.testing.assert_close(tensor, weights(right[0])[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("after", [False, True], ids=["before-the-gradient", "after-it"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("error", ERRORS)
def test_a_part_that_is_too_large_is_cut(
    error: str, rows: int, accumulate: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(feed_of(24, size=8), accumulate=accumulate)
    sizes: list[int] = []

    def too_large(_: int, batch: Batch) -> bool:
        sizes.append(len(batch.ids))
        return len(batch.ids) > rows

    monkeypatch.setattr(loop, "score", failing(loop.score, too_large, ERRORS[error], after))
    same_steps(run(feed_of(24, size=8), accumulate=accumulate), expected)
    first_step = sizes.index(rows if rows < 5 else 4)
    assert max(sizes[first_step:]) <= rows, "what was too large once is not tried again"


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
def test_memory_that_is_short_for_a_moment_costs_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(feed_of(24, size=8), accumulate=2)
    short = failing(loop.score, lambda call, _: call == number, MemoryError, after=True)
    monkeypatch.setattr(loop, "score", short)
    same_steps(run(feed_of(24, size=8), accumulate=2), expected)


def test_packed_examples_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = [Feed(**{**vars(feed_of(24, size=8)), "pack": 32}) for _ in range(2)]
    expected = run(packed[0])
    monkeypatch.setattr(loop, "score", failing(loop.score, lambda _, batch: len(batch.ids) > 2, MemoryError, True))
    same_steps(run(packed[1]), expected)


def test_a_single_example_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "score", failing(loop.score, lambda *_: True, MemoryError, False))
    with pytest.raises(OutOfMemory, match=r"^step 1: memory does not hold a single example \(number \d+, 16 tokens\)$"):
        run(feed_of(24, size=8))


def test_another_error_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "score", failing(loop.score, lambda *_: True, lambda: RuntimeError("shapes"), False))
    with pytest.raises(RuntimeError, match="shapes"):
        run(feed_of(24, size=8))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def short_of_memory(forward: Score, rows: int, sizes: list[int]) -> Score:
    """`Encoder.forward` that has memory for so many rows; notes how many it was given."""

    def forwarded(self: Encoder, ids: torch.Tensor, *rest: Any, **more: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > rows:
            raise RuntimeError(CPU)
        return forward(self, ids, *rest, **more)

    return forwarded


@pytest.mark.parametrize("rows", [pytest.param(1, marks=LONG), 3])
@pytest.mark.parametrize("kind", ["pairs", "labels", "text"])
def test_validation_is_cut_too(kind: str, rows: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, sizes = Trial(kind, (f"{'pretrain' if kind == 'text' else 'finetune'}.batch_tokens=300",)), []
    expected, score = trial.run("whole"), loop.score

    def too_large(_: int, batch: Batch) -> bool:
        sizes.append(0 if torch.is_grad_enabled() else len(batch.ids))
        return sizes[-1] > rows

    monkeypatch.setattr(loop, "score", failing(score, too_large, MemoryError, after=False))
    found = trial.run("cut")
    assert max(sizes) > rows
    assert {name: found[name] for name in expected if "log" not in name and "state" not in name} == {
        name: expected[name] for name in expected if "log" not in name and "state" not in name
    }
    logs = [[entry["loss"] for entry in log["log.jsonl"]] for log in (found, expected)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def said(kind: str, name: str) -> list[dict[str, Any]]:
    """What a trained model says of the lines that it has learnt."""
    command = {"labels": generate, "pairs": score}[kind]
    command.run(source=f"{kind}.jsonl", model=Path("run"), output=Path(name), as_json=True)
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.mark.parametrize("rows", [pytest.param(1, marks=LONG), 2, pytest.param(7, marks=LONG)])
@pytest.mark.parametrize("kind", ["labels", "pairs"])
def test_labels_and_scores_are_given_a_few_lines_at_a_time(
    kind: str, rows: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trial(kind, ()).run("run")
    expected, sizes = said(kind, "expected"), list[int]()
    monkeypatch.setattr(Encoder, "forward", short_of_memory(Encoder.forward, rows, sizes))
    for found, wanted in zip(said(kind, "found"), expected, strict=True):
        if kind == "labels":
            assert found["label"] == wanted["label"]
            assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
        else:
            assert found["token_scores"] == pytest.approx(wanted["token_scores"], abs=1e-5)
    assert len([size for size in sizes if size > rows]) < 6, "what was too large is not tried again and again"
    assert max(sizes) == 24


@pytest.mark.parametrize("kind", ["labels", "pairs"])
def test_a_line_that_does_not_fit_alone_ends_in_one_line(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trial(kind, ()).run("run")
    monkeypatch.setattr(Encoder, "forward", short_of_memory(Encoder.forward, 0, []))
    with pytest.raises(OutOfMemory, match="^memory does not hold the reading of a single line$"):
        said(kind, "found")


def test_a_validation_example_that_does_not_fit_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = failing(loop.score, lambda *_: not torch.is_grad_enabled(), MemoryError, after=False)
    monkeypatch.setattr(loop, "score", never)
    with pytest.raises(OutOfMemory, match=r"^validation: memory does not hold a single example \(number 3, 16 "):
        Trial("pairs", ()).run("run")


TRIAL = Trial("pairs", ("finetune.evaluate_every=6", "finetune.accumulate=2"))


def poisoning(where: str, calls: set[int], value: float) -> Score:
    """`score` that gives a loss, or leaves a gradient, that is no number in these calls."""
    score, made = loop.score, 0

    def scored(encoder: Encoder, *rest: Any) -> Any:
        nonlocal made
        made += 1
        found = score(encoder, *rest)
        if made not in calls:
            return found
        if where == "loss":
            return {key: tensor * value for key, tensor in found.items()}
        gradient = encoder.head.bias.grad
        assert gradient is not None
        gradient.fill_(value)
        return found

    return scored


@pytest.mark.parametrize(
    "value", [float("nan"), pytest.param(float("inf"), marks=LONG), pytest.param(float("-inf"), marks=LONG)]
)
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("call", [1, 4])
def test_what_is_no_number_is_skipped_and_written_down(
    call: int, where: str, value: float, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "score", poisoning(where, {call}, value))
    written = TRIAL.run("run")
    step = (call + 1) // 2
    (note,) = (place / "run" / "skipped").iterdir()
    found = json.loads(note.read_text())
    assert (note.name, found["step"]) == (f"step-{step}.json", step)
    assert len(found["batches"]) == 2
    assert all(batch["epoch"] == 0 and batch["examples"] for batch in found["batches"])
    assert "nan" in found["loss"] + found["gradient_norm"] or "inf" in found["loss"] + found["gradient_norm"]
    assert written["checkpoints/step-6/state.json"][0]["position"]["skipped"] == 1
    values = written["checkpoints/step-6/model.safetensors"].values()
    assert all(torch.tensor(tensor).isfinite().all() for tensor in values)


def test_too_many_end_training_and_all_are_written_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "score", poisoning("loss", set(range(1000)), float("nan")))
    with pytest.raises(NumericError, match="step 21: loss or gradient is not a number, as in 20 steps before"):
        TRIAL.run("run", "finetune.steps=40")
    assert len(list((place / "run" / "skipped").iterdir())) == 21


def poisonous(example: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever batch of training has this example, alone or among others, loses what is no number."""
    made, score = Feed.batch, loop.score
    having: list[Batch] = []

    def noted(self: Feed[Any], epoch: int, indices: Any) -> Batch:
        batch = made(self, epoch, indices)
        having.extend([batch] if example in indices.tolist() else [])
        return batch

    def scored(encoder: Encoder, batch: Batch, *rest: Any) -> Any:
        bad = torch.is_grad_enabled() and any(one is batch for one in having)
        return {key: tensor * (float("nan") if bad else 1) for key, tensor in score(encoder, batch, *rest).items()}

    monkeypatch.setattr(Feed, "batch", noted)
    monkeypatch.setattr(loop, "score", scored)


@pytest.mark.parametrize("kind", [pytest.param("pairs", marks=LONG), pytest.param("labels", marks=LONG), "text"])
def test_a_skipped_step_is_met_again_and_the_example_named(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = "pretrain" if kind == "text" else "finetune"
    poisonous(7, monkeypatch)
    written = Trial(kind, (f"{section}.accumulate=2", f"{section}.save_every=1", f"{section}.keep_last=9")).run("run")
    (note, *_) = sorted((place / "run" / "skipped").iterdir())
    step = json.loads(note.read_text())["step"]
    (command,) = re.findall(rf"meet it again: (.* --replay {step})\n", capsys.readouterr().err)
    assert command == f"unilmctl {section} run/recipe.yaml --replay {step}"
    assert cli.run(command.split()[1:]) == 0
    title, _, together, *lines, last = capsys.readouterr().out.splitlines()
    assert title == f"step {step} with the weights of step {step - 1}"
    assert together.split()[2] == "nan"
    found = {int(line.split()[0]): [float(figure) for figure in line.split()[3:5]] for line in lines}
    assert list(found) == [one for batch in json.loads(note.read_text())["batches"] for one in batch["examples"]]
    assert [example for example, figures in found.items() if not all(map(math.isfinite, figures))] == [7]
    assert last == f"1 of {len(found)} examples give no number"
    assert contents(place / "run") == written, "nothing in the run folder has changed"


def test_a_step_that_is_met_again_has_the_loss_that_it_had(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gradient alone was no number, and the weights are those that it had: the loss is the same."""
    with monkeypatch.context() as patched:
        patched.setattr(loop, "score", poisoning("gradient", {5}, float("nan")))
        TRIAL.run("run", "finetune.save_every=1", "finetune.keep_last=9")
    wanted = json.loads((place / "run/skipped/step-3.json").read_text())
    capsys.readouterr()
    assert cli.run(["finetune", "run/recipe.yaml", "--replay", "3"]) == 0
    _, _, together, *_, last = capsys.readouterr().out.splitlines()
    assert together.split()[2] == f"{float(wanted['loss']):.5g}"
    assert last == "each example alone gives a number"


@pytest.mark.parametrize(("bad", "known"), [((), "no step was"), ({3, 5}, "skipped were 2, 3")])
def test_a_step_that_was_not_skipped_is_not_met_again(
    bad: set[int], known: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "score", poisoning("loss", set(bad), float("nan")))
    TRIAL.run("run")
    assert cli.run(["finetune", "run/recipe.yaml", "--replay", "4"]) == 2
    assert capsys.readouterr().err.endswith(f"error: run: step 4 was not skipped\nhint: {known}\n")


def test_a_step_before_all_checkpoints_is_met_with_the_weights_that_training_began_with(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "score", poisoning("loss", {5}, float("nan")))
    TRIAL.run("run", "data.valid=null", "finetune.save_every=6")
    assert cli.run(["finetune", "run/recipe.yaml", "--replay", "3"]) == 0
    assert "step 3 with the weights of step 0\n" in capsys.readouterr().out
