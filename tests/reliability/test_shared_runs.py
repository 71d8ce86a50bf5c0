"""Runs that several processes share are stopped, gone on with and skip a step as the run of one process does.

Stopped and gone on with by as many processes, a run is bit by bit the run that was never stopped. By another number it
has the same examples at every step, none twice and none left out, and the same figures but for the order in which a
sum is added up. A number that is none on one process alone is met by all of them, memory that is
short on one by that one.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Ended, Questions, Trial, command_line, contents, furnish, make_base, side_by_side

from unilmctl.rows import Batch
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.training import loop

STAGES = "pretrain.stages=[{steps: 2, mix: [{objective: bidirectional}]}, {steps: 4, mix: [{objective: seq2seq}]}]"
MIX = "pretrain.mix=[{objective: bidirectional, pair: next-sentence}, {objective: seq2seq}, {objective: infilling}]"
LEARNT: dict[str, tuple[str, tuple[str, ...]]] = {
    "pseudo": ("pairs", ("finetune.objective=pseudo",)),
    "causal": ("pairs", ("finetune.objective=causal",)),
    "classify": ("labels", ()),
    "mix": ("text", (MIX,)),
    "two-stages": ("text", (STAGES, "pretrain.mix=null")),
}
LONG = pytest.mark.reliability
NO_DROPOUT = ("model.dropout=0", "model.attention_dropout=0")


def trial(name: str, accumulate: int, sharding: str, *more: str) -> Trial:
    kind, settings = LEARNT[name]
    section = "pretrain" if kind == "text" else "finetune"
    wanted = (f"{section}.accumulate={accumulate}", f"{section}.sharding={sharding}", f"{section}.log_every=1")
    return Trial(kind, (*settings, *wanted, *more))


def started(
    trial: Trial,
    run: str,
    folder: Path,
    *,
    size: int = 2,
    stopped: tuple[int, int] = (0, 0),
    prepare: Callable[[int], None] = lambda rank: None,
) -> list[Ended]:
    """Starts the run or goes on with it; the process of rank `stopped[0]` is stopped at its question `stopped[1]`.

    `prepare` is done before, by each process, which is told its rank.
    """
    rank, number = stopped

    def work(mine: int) -> None:
        questions = Questions(number if mine == rank else 0, signal.SIGTERM)
        StopSignals.__call__ = questions.asking  # type: ignore[method-assign]
        loop._accumulate = noting(folder / f"examples-{mine}", loop._accumulate)
        prepare(mine)
        try:
            command_line(*trial.arguments(run))()
        finally:
            (folder / f"asked-{mine}").write_text(str(questions.asked))

    return side_by_side(work, folder, size)


def noting(path: Path, accumulate: Callable[..., Any]) -> Callable[..., Any]:
    """`_accumulate` that writes down which examples a process has at which step."""

    def noted(encoder: Any, parts: list[Any], work: Any) -> Any:
        with path.open("a") as file:
            for part in parts:
                if part.counted:
                    file.write(json.dumps([work.step, part.epoch, part.indices.tolist()]) + "\n")
        return accumulate(encoder, parts, work)

    return noted


def examples_of(*starts: Path) -> dict[int, list[tuple[int, int]]]:
    """Epoch and number of every example that the processes had, by step; a step done again counts as it was last."""
    found: dict[int, list[tuple[int, int]]] = {}
    for start in starts:
        mine: dict[int, list[tuple[int, int]]] = {}
        for path in start.glob("examples-*"):
            for step, epoch, indices in map(json.loads, path.read_text().splitlines()):
                mine.setdefault(step, []).extend((epoch, index) for index in indices)
        found |= {step: sorted(examples) for step, examples in mine.items()}
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and recipes; stores are built by whoever comes first."""
    folder = tmp_path_factory.mktemp("shared")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        make_base()
    return folder


class Places:
    """Folders of a test, and its runs in them, as paths from the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> tuple[str, Path]:
        made = self.folder / name
        made.mkdir()
        return os.path.relpath(made / "run"), made


@pytest.fixture
def places(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(place)
    return Places(tmp_path)


def resumed() -> Iterator[Any]:
    """What is learnt x accumulation x sharding; the process that is stopped, and when, in turn."""
    for number, (name, accumulate, sharding) in enumerate(product(LEARNT, (1, 3), ("none", "full"))):
        rank, moment = number % 2, (0.3, 0.55, 0.8)[number % 3]
        label = f"{name}-x{accumulate}-{sharding}-process-{rank}-at-{moment}"
        marks = [] if number == 14 else [LONG]
        yield pytest.param(trial(name, accumulate, sharding), rank, moment, id=label, marks=marks)


@pytest.mark.parametrize(("trial", "rank", "moment"), resumed())
def test_stopped_and_gone_on_with_by_as_many_is_the_same_as_never_stopped(
    trial: Trial, rank: int, moment: float, places: Places
) -> None:
    (straight, whole), (parted, first) = places("straight"), places("stopped")
    assert [end.code for end in started(trial, straight, whole)] == [0, 0]
    number = int(int((whole / f"asked-{rank}").read_text()) * moment)
    ends = started(trial, parted, first, stopped=(rank, number))
    assert [end.code for end in ends] == [75, 75], ends
    assert sum("all is saved in" in end.said for end in ends) == 1
    assert [end.code for end in started(trial, parted, first)] == [0, 0]
    assert contents(Path(parted)) == contents(Path(straight))


def changed() -> Iterator[Any]:
    """What is learnt x processes before and after x accumulation, shared out or not in turn."""
    numbers = ((2, 1), (1, 2), (2, 3), (4, 2))
    for number, (name, sizes, accumulate) in enumerate(product(("pseudo", "classify", "mix"), numbers, (1, 2))):
        sharding = ("none", "full")[number // 3 % 2]
        label = f"{name}-{sizes[0]}-then-{sizes[1]}-x{accumulate}-{sharding}"
        marks = [] if number == 8 else [LONG]
        yield pytest.param(trial(name, accumulate, sharding, *NO_DROPOUT), *sizes, id=label, marks=marks)


@pytest.mark.parametrize(("trial", "before", "after"), changed())
def test_another_number_of_processes_goes_on_with_the_same_examples(
    trial: Trial, before: int, after: int, places: Places
) -> None:
    (straight, whole), (parted, first), (_, second) = places("straight"), places("before"), places("after")
    assert [end.code for end in started(trial, straight, whole, size=1)] == [0]
    ends = started(trial, parted, first, size=before, stopped=(before - 1, 10))
    assert [end.code for end in ends] == [75] * before, ends
    assert [end.code for end in started(trial, parted, second, size=after)] == [0] * after
    expected = examples_of(whole)
    assert examples_of(first, second) == expected
    assert list(expected) == list(range(6))
    assert min(examples_of(second)) > 0, "it did not begin again"
    same_figures(parted, straight)


def same_figures(run: str, reference: str) -> None:
    """The same losses to a part in a hundred thousand, and weights as near as six steps of Adam leave them."""
    for found, expected in zip(logged(run), logged(reference), strict=True):
        assert (found["step"], found.get("epoch")) == (expected["step"], expected.get("epoch"))
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    one, other = (contents(Path(name))["checkpoints/step-6/model.safetensors"] for name in (run, reference))
    for name, values in other.items():
        torch.testing.assert_close(torch.tensor(one[name]), torch.tensor(values), atol=1e-4, rtol=1e-3)


def logged(run: str) -> list[dict[str, Any]]:
    return [entry for entry in RunFolder(Path(run)).read_log() if "loss" in entry]


@pytest.mark.parametrize("rows", [pytest.param(1, marks=LONG), 2])
@pytest.mark.parametrize("rank", [pytest.param(0, marks=LONG), 1])
def test_memory_that_is_short_on_one_process_changes_nothing(rank: int, rows: int, places: Places) -> None:
    (straight, whole), (cut, folder) = places("straight"), places("cut")
    wanted = trial("pseudo", 1, "none", *NO_DROPOUT)

    def short(mine: int) -> None:
        score = loop.score

        def scored(encoder: Any, batch: Batch, *rest: Any) -> Any:
            if mine == rank and len(batch.ids) > rows:
                (folder / "too large").touch()
                raise MemoryError
            return score(encoder, batch, *rest)

        loop.score = scored

    assert [end.code for end in started(wanted, straight, whole)] == [0, 0]
    ends = started(wanted, cut, folder, prepare=short)
    assert [end.code for end in ends] == [0, 0], ends
    assert (folder / "too large").exists()
    same_figures(cut, straight)


def poisoned(rank: int, calls: set[int], value: float, where: str) -> Callable[[int], None]:
    """Makes `score` of one process give a loss or leave a gradient that is no number, in these calls."""

    def prepare(mine: int) -> None:
        score, made = loop.score, 0

        def scored(encoder: Any, batch: Batch, *rest: Any) -> Any:
            nonlocal made
            found = score(encoder, batch, *rest)
            made += bool(torch.is_grad_enabled())
            if mine == rank and made in calls and torch.is_grad_enabled():
                if where == "loss":
                    return {key: tensor * value for key, tensor in found.items()}
                encoder.head.bias.grad.fill_(value)
            return found

        loop.score = scored

    return prepare


@pytest.mark.parametrize("sharding", ["none", pytest.param("full", marks=LONG)])
@pytest.mark.parametrize(
    ("rank", "where"),
    [(0, "loss"), (1, "gradient"), pytest.param(0, "gradient", marks=LONG), pytest.param(1, "loss", marks=LONG)],
)
def test_what_is_no_number_on_one_process_is_skipped_by_all(
    rank: int, where: str, sharding: str, places: Places
) -> None:
    run, folder = places("poisoned")
    wanted = trial("pseudo", 2, sharding)
    ends = started(wanted, run, folder, prepare=poisoned(rank, {3}, float("nan"), where))
    assert [end.code for end in ends] == [0, 0], ends
    assert [end.said.count("step 3 is skipped") for end in ends] == [1, 0]
    (note,) = (Path(run) / "skipped").iterdir()
    found = json.loads(note.read_text())
    assert (note.name, len(found["batches"])) == ("step-3.json", 2), "both batches, whoever had them"
    assert [batch["examples"] for batch in found["batches"]] != [[], []]
    state = json.loads((Path(run) / "checkpoints/step-6/state.json").read_text())
    assert state["position"]["skipped"] == 1
    assert all(
        torch.tensor(values).isfinite().all()
        for name, tensors in contents(Path(run)).items()
        if name.endswith(".safetensors")
        for values in tensors.values()
    )


def test_a_step_is_met_again_by_one_process_alone(places: Places) -> None:
    run, folder = places("poisoned")
    wanted = trial("pseudo", 2, "none")
    started(wanted, run, folder, prepare=poisoned(1, {3}, float("nan"), "loss"))
    again = ("finetune", f"{run}/recipe.yaml", "--replay", 3)
    ends = side_by_side(lambda rank: command_line(*again)(), folder)
    assert [end.code for end in ends] == [2, 2]
    assert [end.said for end in ends if end.said] == [
        "error: --replay is the work of one process\nhint: start it without torchrun\n"
    ]
    (alone,) = side_by_side(lambda rank: command_line(*again)(), folder, size=1)
    assert alone.code == 0
    assert "step 3 with the weights of step 0" in alone.said, "of two checkpoints that are kept none is that old"


@pytest.mark.parametrize("rank", [pytest.param(0, marks=LONG), 1])
def test_too_many_on_one_process_end_all_of_them(rank: int, places: Places) -> None:
    run, folder = places("poisoned")
    wanted = trial("pseudo", 1, "none", "finetune.steps=40")
    ends = started(wanted, run, folder, prepare=poisoned(rank, set(range(1000)), float("inf"), "loss"))
    assert [end.code for end in ends] == [6, 6], ends
    assert sum(end.said.count("step 21: loss or gradient is not a number") for end in ends) == 1
    assert len(list((Path(run) / "skipped").iterdir())) == 21
