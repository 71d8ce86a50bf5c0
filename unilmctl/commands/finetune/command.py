"""From a recipe to a finished run."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unilmctl import console, preparation
from unilmctl import recipe as recipes
from unilmctl.commands.finetune.averaging import average
from unilmctl.commands.finetune.fitting import Fitting
from unilmctl.commands.finetune.ingredients import feed_of, fingerprint, frame_of, train_options, validation_of
from unilmctl.commands.finetune.starting import resumed_model, starting_model
from unilmctl.commands.finetune.validation import better
from unilmctl.commands.finetune.watching import watched
from unilmctl.errors import DataError, RecipeError
from unilmctl.preparation import Prepared
from unilmctl.recipe import Recipe
from unilmctl.runs import Best, RunFolder, StopSignals, check_same_run, load_checkpoint
from unilmctl.runs.board import require_tensorboard
from unilmctl.training import build_optimizer
from unilmctl.weights import load_model, save_model


@dataclass(frozen=True)
class FinetuneReport:
    """What a run left: its folder, the steps done, the best checkpoint and its value of `criterion`."""

    run: Path
    steps: int
    criterion: str
    best: Best | None


def run(*, recipe: str, settings: Sequence[str] = (), fresh: bool = False) -> FinetuneReport:
    """Trains the recipe; started again it goes on from the newest checkpoint, or with `fresh` starts over.

    Raises a UserError for mistakes in recipe, data and model; Stopped, with everything saved, after a signal.
    """
    plan = recipes.load(recipe, settings)
    if plan.finetune.tensorboard:
        require_tensorboard()
    torch.set_num_threads(plan.finetune.threads or _cores())
    folder = RunFolder(plan.run)
    if fresh:
        folder.clear()
    elif folder.recipe.exists():
        check_same_run(_recorded(folder), plan.resolved(), folder.folder)
    prepared = prepare(plan)
    folder.start(recipes.dump_yaml(plan))
    with StopSignals() as signals:
        fitting = assemble(plan, folder, prepared, signals)
        with watched(plan, folder, prepared.stores, after=fitting.position.step):
            fitting.run()
            finish(fitting)
    report = FinetuneReport(plan.run, fitting.position.step, plan.finetune.keep_best_by, fitting.best)
    _tell(report)
    return report


def prepare(plan: Recipe) -> Prepared:
    """The tokenizer and the stores of the training and validation splits."""
    splits = {name: split for name, split in recipes.splits_of(plan).items() if name != "test"}
    for path in recipes.write_generated(plan):
        console.say(f"wrote {path}")
    recipes.require_files(plan, splits)
    tokenizer = plan.tokens.train or plan.tokenizer
    assert tokenizer is not None, "the schema asks for one of the two"
    with console.progress("preparing", unit="lines") as advance:
        done: dict[str, int] = {}

        def tell(stage: str, count: int, _: int | None) -> None:
            advance(count - done.get(stage, 0))
            done[stage] = count

        prepared = preparation.prepare(
            folder=plan.store,
            splits=splits,
            limits=plan.tokens,
            tokenizer=tokenizer,
            on_bad_line=plan.data.on_bad_line,
            progress=tell,
        )
    for name, report in prepared.report.items():
        if report.built:
            console.say(f"{name}: {report.examples:,} examples ({report.built})")
        if report.bad:
            console.warn(f"{name}: {report.bad:,} bad lines, the first: {'; '.join(report.bad_lines[:1])}")
    return prepared


def assemble(plan: Recipe, folder: RunFolder, prepared: Prepared, signals: StopSignals) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    checkpoint, problems = folder.newest()
    for problem in problems:
        console.warn(f"a checkpoint is broken and left out: {problem}")
    if checkpoint is None:
        (encoder, card), notes = starting_model(plan, prepared.tokenizer)
        for note in notes:
            console.warn(note)
    else:
        encoder, card = resumed_model(load_model(checkpoint), plan)
    options = train_options(plan)
    optimizer = build_optimizer(encoder, options)
    frame = frame_of(plan, prepared.tokenizer, card)
    fitting = Fitting(
        folder=folder,
        encoder=encoder,
        card=card,
        tokenizer=prepared.tokenizer,
        optimizer=optimizer,
        feed=feed_of(plan, prepared.stores["train"], frame),
        options=options,
        schedule=plan.finetune,
        validation=validation_of(plan, prepared, frame, card),
        signals=signals,
        data=fingerprint(prepared.stores["train"]),
    )
    if checkpoint is not None:
        _resume(fitting, checkpoint)
    return fitting


def _resume(fitting: Fitting, checkpoint: Path) -> None:
    state = load_checkpoint(checkpoint, fitting.encoder, fitting.optimizer)
    if state.data != fitting.data:
        raise DataError(
            f"the training data has changed since {checkpoint.name} of {fitting.folder.folder}",
            "start over with --fresh, or give the recipe another `run` folder",
        )
    fitting.resume(state)
    if state.position.step < fitting.options.steps:
        console.say(f"going on from step {state.position.step:,} in {fitting.folder.folder}")


def finish(fitting: Fitting) -> None:
    """Averages the last checkpoints where the recipe asks for it; the average becomes the best if it is better."""
    step, folder, schedule = fitting.position.step, fitting.folder, fitting.schedule
    steps = fitting.regular_steps()[-schedule.average_last :]
    if schedule.average_last < 2 or len(steps) < 2:
        return
    logged = [entry for entry in folder.read_log() if entry["event"] == "average" and entry["step"] == step]
    value = float(logged[-1].get(schedule.keep_best_by, math.nan)) if logged else _averaged(fitting, steps)
    if better(schedule.keep_best_by, value, fitting.best.value if fitting.best else None):
        fitting.best = Best("average", value)
        folder.point("best", "average")


def _averaged(fitting: Fitting, steps: list[int]) -> float:
    """Writes checkpoints/average and returns its criterion. Raises Stopped when a signal came meanwhile."""
    folder = fitting.folder
    average([folder.checkpoint(step) for step in steps], fitting.encoder)
    folder.publish("average", lambda path: save_model(path, fitting.encoder, fitting.card, fitting.tokenizer))
    value = fitting.measure("average")
    if value is None:
        raise fitting.signals.stopped(f"stopped after the last step; all is saved in {folder.folder}")
    return value


def _recorded(folder: RunFolder) -> dict[str, object]:
    try:
        return recipes.load(folder.recipe).resolved()
    except RecipeError as error:
        raise RecipeError(
            f"{folder.recipe}: written by another version of the program\n{error.message}",
            "start over with --fresh, or give the recipe another `run` folder",
        ) from error


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell(report: FinetuneReport) -> None:
    best = f"; best: {report.best.name}, {report.criterion} {report.best.value:.4g}" if report.best else ""
    console.say(f"{report.steps:,} steps done in {report.run}{best}")
