"""A run from its recipe to its report: alone in its folder, alone or among processes, stopped and gone on with."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from unilmctl import console
from unilmctl import recipe as recipes
from unilmctl.errors import DataError, RecipeError
from unilmctl.fitting.ending import finish
from unilmctl.fitting.fitting import Fitting
from unilmctl.fitting.watching import watched
from unilmctl.preparation import Prepared, PreparedTasks, PreparedText
from unilmctl.recipe import Recipe, Training
from unilmctl.runs import Best, RunFolder, StopSignals, alone_in, check_same_run
from unilmctl.runs.board import require_tensorboard
from unilmctl.runs.checkpoint import load_checkpoint
from unilmctl.training.distributed import Processes, cores

ReadyT = TypeVar("ReadyT", Prepared, PreparedText, PreparedTasks)


@dataclass(frozen=True)
class Job(Generic[ReadyT]):
    """What a recipe asks a command to train: `section` is the one on training.

    `prepare` makes tokenizer and stores, `assemble` what training needs, at the newest checkpoint or at the beginning.
    """

    plan: Recipe
    section: Training
    prepare: Callable[[], ReadyT]
    assemble: Callable[[RunFolder, ReadyT, StopSignals, Processes], Fitting]


@dataclass(frozen=True)
class RunReport:
    """What a run left: its folder, the steps done, the best checkpoint and its value of `criterion`."""

    run: Path
    steps: int
    criterion: str
    best: Best | None


def conduct(job: Job[Any], processes: Processes, *, fresh: bool) -> RunReport:
    """Trains; started again it goes on from the newest checkpoint, or with `fresh` starts over.

    Raises a UserError for mistakes in recipe, data and model; Stopped, with everything saved, after a signal.
    """
    plan, section = job.plan, job.section
    processes = processes.on(section.device)
    if section.tensorboard:
        require_tensorboard()
    torch.set_num_threads(section.threads or cores())
    folder = RunFolder(plan.run)
    with alone_in(plan.run) if processes.first else nullcontext():
        prepared = processes.in_turn(lambda: _begin(job, folder, fresh) if processes.first else job.prepare())
        with StopSignals(patience=processes.size > 1) as signals:
            fitting = job.assemble(folder, prepared, signals, processes)
            if 0 < fitting.position.step < section.steps:
                console.say(f"going on from step {fitting.position.step:,} in {plan.run}")
            seen = watched(folder, prepared.stores, after=fitting.position.step, tensorboard=section.tensorboard)
            with seen if processes.first else nullcontext():
                fitting.run()
                fitting.best = processes.from_first(lambda: finish(fitting))
    report = RunReport(plan.run, fitting.position.step, fitting.criterion, fitting.best)
    _tell(report)
    return report


def _begin(job: Job[ReadyT], folder: RunFolder, fresh: bool) -> ReadyT:
    """Prepares the data, and makes the run folder this recipe's."""
    folder.mend()
    if fresh:
        folder.clear()
    elif folder.recipe.exists() and (folder.steps() or folder.read_log()):
        check_same_run(_recorded(folder), job.plan.resolved(), folder.folder)
    prepared = job.prepare()
    folder.start(recipes.dump_yaml(job.plan))
    return prepared


def resume(fitting: Fitting, checkpoint: Path) -> None:
    """Puts the state of a checkpoint, whose weights are in place already, into the run.

    DataError when the training data is not what it was.
    """
    state = load_checkpoint(checkpoint, fitting.encoder, fitting.optimizer, averages=fitting.averages)
    if state.data != fitting.data:
        raise DataError(
            f"the training data has changed since {checkpoint.name} of {fitting.folder.folder}",
            "start over with --fresh, or give the recipe another `run` folder",
        )
    fitting.resume(state)


def _recorded(folder: RunFolder) -> dict[str, object]:
    try:
        return recipes.load(folder.recipe).resolved()
    except RecipeError as error:
        raise RecipeError(
            f"{folder.recipe}: written by another version of the program\n{error.message}",
            "start over with --fresh, or give the recipe another `run` folder",
        ) from error


def _tell(report: RunReport) -> None:
    best = f"; best: {report.best.name}, {report.criterion} {report.best.value:.4g}" if report.best else ""
    console.say(f"{report.steps:,} steps done in {report.run}{best}")
