"""From a recipe to a finished run."""

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from unilmctl import console, preparation
from unilmctl import recipe as recipes
from unilmctl.commands.finetune.averaging import average
from unilmctl.commands.finetune.fitting import Fitting
from unilmctl.commands.finetune.ingredients import (
    adapting_of,
    feed_of,
    fingerprint,
    frame_of,
    train_options,
    validation_of,
)
from unilmctl.commands.finetune.starting import resumed_model, starting_model
from unilmctl.commands.finetune.teaching import teacher_of
from unilmctl.commands.finetune.validation import better
from unilmctl.commands.finetune.watching import watched
from unilmctl.errors import DataError, RecipeError
from unilmctl.model.adapters import adapt
from unilmctl.preparation import Prepared
from unilmctl.recipe import Recipe
from unilmctl.runs import Best, RunFolder, StopSignals, alone_in, check_same_run
from unilmctl.runs.board import require_tensorboard
from unilmctl.runs.checkpoint import load_checkpoint
from unilmctl.training import build_optimizer
from unilmctl.training.averages import Averages
from unilmctl.training.distributed import ALONE, Processes, cores, together
from unilmctl.training.sharding import shard
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

    Under torchrun the processes share the run, and each returns the same report. Raises a UserError for mistakes in
    recipe, data and model; Stopped, with everything saved, after a signal.
    """
    with together(os.environ) as processes:
        if not processes.first:
            console.configure(quiet=True)
        plan = recipes.load(recipe, settings)
        if plan.finetune.tensorboard:
            require_tensorboard()
        torch.set_num_threads(plan.finetune.threads or cores())
        folder = RunFolder(plan.run)
        with alone_in(plan.run) if processes.first else nullcontext():
            prepared = processes.in_turn(
                lambda: _begin(plan, folder, fresh=fresh) if processes.first else prepare(plan)
            )
            with StopSignals(patience=processes.size > 1) as signals:
                fitting = assemble(plan, folder, prepared, signals, processes)
                seen = watched(plan, folder, prepared.stores, after=fitting.position.step)
                with seen if processes.first else nullcontext():
                    fitting.run()
                    fitting.best = processes.from_first(lambda: finish(fitting))
    report = FinetuneReport(plan.run, fitting.position.step, plan.finetune.keep_best_by, fitting.best)
    _tell(report)
    return report


def _begin(plan: Recipe, folder: RunFolder, *, fresh: bool) -> Prepared:
    """Prepares the data, and makes the run folder this recipe's."""
    if fresh:
        folder.clear()
    elif folder.recipe.exists() and (folder.steps() or folder.read_log()):
        check_same_run(_recorded(folder), plan.resolved(), folder.folder)
    prepared = prepare(plan)
    folder.start(recipes.dump_yaml(plan))
    return prepared


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


def assemble(
    plan: Recipe, folder: RunFolder, prepared: Prepared, signals: StopSignals, processes: Processes = ALONE
) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    checkpoint, problems = processes.from_first(folder.newest)
    notes = [f"a checkpoint is broken and left out: {problem}" for problem in problems]
    if checkpoint is None:
        (encoder, card), more = starting_model(plan, prepared.tokenizer)
        notes += more
    else:
        encoder, card = resumed_model(load_model(checkpoint), plan)
    for note in notes if processes.first else ():
        console.warn(note)
    if (adapting := adapting_of(plan)) is not None:
        adapt(encoder, adapting, seed=plan.seed)
    encoder.to(processes.device)
    if plan.finetune.sharding == "full" and processes.size > 1:
        shard(encoder, processes)
    options = train_options(plan)
    optimizer = build_optimizer(encoder, options)
    frame = frame_of(plan, prepared.tokenizer, card)
    teacher = teacher_of(plan, encoder, card, prepared.tokenizer)
    if teacher is not None:
        teacher.encoder.to(processes.device)
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
        processes=processes,
        teacher=teacher,
        averages=None if plan.finetune.ema is None else Averages(encoder, plan.finetune.ema),
    )
    if checkpoint is not None:
        _resume(fitting, checkpoint)
    return fitting


def _resume(fitting: Fitting, checkpoint: Path) -> None:
    state = load_checkpoint(checkpoint, fitting.encoder, fitting.optimizer, averages=fitting.averages)
    if state.data != fitting.data:
        raise DataError(
            f"the training data has changed since {checkpoint.name} of {fitting.folder.folder}",
            "start over with --fresh, or give the recipe another `run` folder",
        )
    fitting.resume(state)
    if state.position.step < fitting.options.steps:
        console.say(f"going on from step {state.position.step:,} in {fitting.folder.folder}")


def finish(fitting: Fitting) -> Best | None:
    """Averages the last checkpoints where the recipe asks for it, and returns the best: the average if it is better."""
    step, folder, schedule = fitting.position.step, fitting.folder, fitting.schedule
    steps = fitting.regular_steps()[-schedule.average_last :]
    if schedule.average_last < 2 or len(steps) < 2:
        return fitting.best
    logged = [entry for entry in folder.read_log() if entry["event"] == "average" and entry["step"] == step]
    value = float(logged[-1].get(schedule.keep_best_by, math.nan)) if logged else _averaged(fitting, steps)
    if better(schedule.keep_best_by, value, fitting.best.value if fitting.best else None):
        folder.point("best", "average")
        return Best("average", value)
    return fitting.best


def _averaged(fitting: Fitting, steps: list[int]) -> float:
    """Writes checkpoints/average and returns its criterion. Raises Stopped when a signal came meanwhile."""
    folder = fitting.folder
    encoder = load_model(folder.checkpoint(steps[-1])).encoder.to(fitting.processes.device)
    average([folder.checkpoint(step) for step in steps], encoder)
    folder.publish("average", lambda path: save_model(path, encoder, fitting.card, fitting.tokenizer))
    value = fitting.measure("average", encoder)
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


def _tell(report: FinetuneReport) -> None:
    best = f"; best: {report.best.name}, {report.criterion} {report.best.value:.4g}" if report.best else ""
    console.say(f"{report.steps:,} steps done in {report.run}{best}")
