"""From a recipe and text to a pre-trained model."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from unilmctl import console, fitting, preparation
from unilmctl import recipe as recipes
from unilmctl.commands.pretrain.mixing import SPECIAL, check_rows, feed_of, mix_of, names_of
from unilmctl.commands.pretrain.starting import resumed_model, starting_model
from unilmctl.commands.pretrain.validation import Validation
from unilmctl.data.passages import Passages
from unilmctl.data.store import Store
from unilmctl.errors import RecipeError
from unilmctl.fitting import Fitting, Job, RunReport, Stage, conduct, fingerprint, newest, place, resume, train_options
from unilmctl.fitting.preparing import wanted_splits, wanted_tokenizer, with_progress
from unilmctl.preparation import PreparedText
from unilmctl.recipe import Pretrain, Recipe
from unilmctl.rows import Frame
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.tokens import Tokenizer
from unilmctl.training import TrainOptions, build_optimizer
from unilmctl.training.averages import Averages
from unilmctl.training.distributed import Processes, together
from unilmctl.training.replaced import DETECTING, REPLACED


def run(*, recipe: str, settings: Sequence[str] = (), fresh: bool = False) -> RunReport:
    """Pre-trains the recipe's model; started again it goes on, or with `fresh` starts over.

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
    if plan.pretrain is None:
        raise RecipeError(f"{plan.origin}: there is no section pretrain", "unilmctl finetune trains on pairs")
    check_rows(plan)
    return Job(plan, plan.pretrain, partial(prepare, plan), partial(assemble, plan, plan.pretrain))


def prepare(plan: Recipe) -> PreparedText:
    """The tokenizer and the stores of the training and validation text."""
    splits, tokenizer = wanted_splits(plan), wanted_tokenizer(plan)
    prepared = with_progress(
        lambda progress: preparation.prepare_text(
            folder=plan.store,
            splits=splits,
            tokenizer=tokenizer,
            on_bad_line=plan.data.on_bad_line,
            progress=progress,
        )
    )
    for name, report in prepared.report.items():
        if report.built:
            counted = f"{report.documents:,} documents, {report.sentences:,} sentences, {report.tokens:,} tokens"
            console.say(f"{name}: {counted} ({report.built})")
        if report.bad:
            console.warn(f"{name}: {report.bad:,} bad lines, the first: {'; '.join(report.bad_lines[:1])}")
    return prepared


def assemble(
    plan: Recipe,
    section: Pretrain,
    folder: RunFolder,
    prepared: PreparedText,
    signals: StopSignals,
    processes: Processes,
) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    checkpoint, (encoder, card) = newest(
        folder,
        processes,
        begin=lambda: starting_model(plan, section, prepared.tokenizer),
        again=lambda path: resumed_model(path, plan, section),
    )
    place(encoder, section, processes)
    options = replace(train_options(section, plan.seed), head_weights={REPLACED: DETECTING, **section.head_weights})
    frame = frame_of(plan, prepared.tokenizer, encoder.config.segments)
    fitting = Fitting(
        folder=folder,
        encoder=encoder,
        card=card,
        tokenizer=prepared.tokenizer,
        optimizer=build_optimizer(encoder, options),
        stages=stages_of(plan, section, prepared, frame, options),
        options=options,
        schedule=section,
        criterion="loss",
        names=names_of(section),
        signals=signals,
        data=fingerprint(prepared.stores["train"]),
        processes=processes,
        averages=None if section.ema is None else Averages(encoder, section.ema),
    )
    if checkpoint is not None:
        resume(fitting, checkpoint)
    return fitting


def stages_of(
    plan: Recipe, section: Pretrain, prepared: PreparedText, frame: Frame, options: TrainOptions
) -> list[Stage]:
    """The stages of the recipe, all on the same passages."""
    train, valid = (passages_of(plan, section, prepared.stores.get(name)) for name in ("train", "valid"))
    assert train is not None, "the schema asks for it"
    stages, until = [], 0
    for stage in section.plan:
        until += stage.steps
        mix = mix_of(stage.mix, frame, plan, prepared.tokenizer)
        measured = None if valid is None else feed_of(plan, valid, mix, most=section.evaluate_examples)
        validation = None if measured is None else Validation(measured, options, names_of(section))
        stages.append(Stage(until, feed_of(plan, train, mix), validation))
    return stages


def passages_of(plan: Recipe, section: Pretrain, store: Store | None) -> Passages | None:
    """The passages of a store; None for none."""
    if store is None:
        return None
    return Passages(store, plan.tokens.max_length - SPECIAL, merge=section.across_documents)


def frame_of(plan: Recipe, tokenizer: Tokenizer, segments: int) -> Frame:
    """The special tokens and limits of this recipe's rows, in the first two of the model's segments."""
    roles, length = tokenizer.roles, plan.tokens.max_length
    return Frame(
        pad=roles.pad,
        start=roles.start,
        separator=roles.separator,
        mask=roles.mask,
        vocabulary=tokenizer.size,
        source_segment=0,
        target_segment=int(segments > 1),
        max_source=length,
        max_target=length,
    )
