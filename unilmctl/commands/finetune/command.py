"""From a recipe to a finished run."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from unilmctl import console, fitting, preparation
from unilmctl import recipe as recipes
from unilmctl.commands.finetune import tasks
from unilmctl.commands.finetune.ingredients import adapting_of, feed_of, frame_of, rows_of, validation_of
from unilmctl.commands.finetune.starting import resumed_model, starting_model
from unilmctl.commands.finetune.teaching import teacher_of
from unilmctl.errors import RecipeError
from unilmctl.fitting import Fitting, Job, RunReport, Stage, conduct, fingerprint, newest, place, resume, train_options
from unilmctl.fitting.preparing import tell, wanted_splits, wanted_tokenizer, with_progress
from unilmctl.model.adapters import adapt
from unilmctl.preparation import Prepared
from unilmctl.recipe import Recipe
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.training import build_optimizer
from unilmctl.training.averages import Averages
from unilmctl.training.distributed import Processes, together
from unilmctl.weights import load_model


def run(*, recipe: str, settings: Sequence[str] = (), fresh: bool = False) -> RunReport:
    """Trains the recipe; started again it goes on from the newest checkpoint, or with `fresh` starts over.

    Under torchrun the processes share the run, and each returns the same report. Raises a UserError for mistakes in
    recipe, data and model; Stopped, with everything saved, after a signal.
    """
    with together(os.environ) as processes:
        return conduct(_job(recipe, settings, processes), processes, fresh=fresh)


def replay(*, recipe: str, settings: Sequence[str] = (), step: int) -> None:
    """Shows which examples made a run skip a step; see `fitting.replaying`."""
    with together(os.environ) as processes:
        fitting.replay(_job(recipe, settings, processes), processes, step)


def _job(recipe: str, settings: Sequence[str], processes: Processes) -> Job[Any]:
    if not processes.first:
        console.configure(quiet=True)
    plan = recipes.load(recipe, settings)
    if plan.pretrain is not None:
        raise RecipeError(f"{plan.origin}: this recipe pre-trains", f"start it so: unilmctl pretrain {recipe}")
    rows_of(plan)  # a row of the recipe's own that shows its answers is refused before any text is read
    if plan.finetune.task != "generate" or plan.tasks is not None:
        return Job(plan, plan.finetune, partial(tasks.prepare, plan), partial(tasks.assemble, plan))
    return Job(plan, plan.finetune, partial(prepare, plan), partial(assemble, plan))


def prepare(plan: Recipe) -> Prepared:
    """The tokenizer and the stores of the training and validation splits."""
    splits, tokenizer = wanted_splits(plan), wanted_tokenizer(plan)
    prepared = with_progress(
        lambda progress: preparation.prepare(
            folder=plan.store,
            splits=splits,
            limits=plan.tokens,
            tokenizer=tokenizer,
            on_bad_line=plan.data.on_bad_line,
            progress=progress,
        )
    )
    tell(prepared.report)
    return prepared


def assemble(
    plan: Recipe, folder: RunFolder, prepared: Prepared, signals: StopSignals, processes: Processes
) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    checkpoint, (encoder, card) = newest(
        folder,
        processes,
        begin=lambda: starting_model(plan, prepared.tokenizer),
        again=lambda path: resumed_model(load_model(path), plan),
    )
    if (adapting := adapting_of(plan)) is not None:
        adapt(encoder, adapting, seed=plan.seed)
    place(encoder, plan.finetune, processes)
    options = replace(train_options(plan.finetune, plan.seed), head_weights=plan.finetune.head_weights)
    optimizer = build_optimizer(encoder, options)
    frame = frame_of(plan, prepared.tokenizer, card)
    teacher = teacher_of(plan, encoder, card, prepared.tokenizer)
    if teacher is not None:
        teacher.encoder.to(processes.device)
    feed = feed_of(plan, prepared.stores["train"], frame)
    valid = (plan.data.valid, prepared.stores.get("valid"))
    validation = validation_of(plan, *valid, frame, card, prepared.tokenizer)
    fitting = Fitting(
        folder=folder,
        encoder=encoder,
        card=card,
        tokenizer=prepared.tokenizer,
        optimizer=optimizer,
        stages=[Stage(options.steps, feed, validation)],
        options=options,
        schedule=plan.finetune,
        criterion=plan.finetune.keep_best_by,
        signals=signals,
        data=fingerprint(prepared.stores["train"]),
        processes=processes,
        teacher=teacher,
        averages=None if plan.finetune.ema is None else Averages(encoder, plan.finetune.ema),
    )
    if checkpoint is not None:
        resume(fitting, checkpoint)
    return fitting
