"""From a recipe to a finished run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from unilmctl import console, preparation
from unilmctl import recipe as recipes
from unilmctl.commands.finetune.fitting import Fitting
from unilmctl.commands.finetune.starting import resumed_model, starting_model
from unilmctl.commands.finetune.validation import Validation
from unilmctl.data.batching import batches
from unilmctl.data.store import Store
from unilmctl.errors import DataError, RecipeError
from unilmctl.objectives import Corruption, build, row_length
from unilmctl.preparation import Prepared
from unilmctl.recipe import Recipe
from unilmctl.rows import Frame, Ints
from unilmctl.runs import Best, RunFolder, StopSignals, check_same_run, load_checkpoint
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed, TrainOptions, build_optimizer, prefers_bfloat16
from unilmctl.weights import ModelCard, load_model


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
    torch.set_num_threads(plan.finetune.threads or os.cpu_count() or 1)
    folder = RunFolder(plan.run)
    if fresh:
        folder.clear()
    elif folder.recipe.exists():
        check_same_run(_recorded(folder), plan.resolved(), folder.folder)
    prepared = prepare(plan)
    folder.start(recipes.dump_yaml(plan))
    with StopSignals() as signals:
        fitting = assemble(plan, folder, prepared, signals)
        fitting.run()
        finish(fitting)
    report = FinetuneReport(plan.run, fitting.position.step, plan.finetune.keep_best_by, fitting.best)
    _tell(report)
    return report


def prepare(plan: Recipe) -> Prepared:
    """The tokenizer and the stores of the training and validation splits."""
    splits = {name: split for name, split in recipes.splits_of(plan).items() if name != "test"}
    recipes.require_files(plan, splits)
    tokenizer = plan.tokens.train or plan.tokenizer
    assert tokenizer is not None, "the schema asks for one of the two"
    return preparation.prepare(
        folder=plan.store, splits=splits, limits=plan.tokens, tokenizer=tokenizer, on_bad_line=plan.data.on_bad_line
    )


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


def train_options(plan: Recipe) -> TrainOptions:
    """The recipe's `finetune` section as the training loop wants it."""
    section = plan.finetune
    precision: Literal["float32", "bfloat16"]
    if section.precision == "auto":
        precision = "bfloat16" if prefers_bfloat16(torch.device("cpu")) else "float32"
    else:
        precision = section.precision
    return TrainOptions(
        steps=section.steps,
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup=section.warmup,
        label_smoothing=section.label_smoothing,
        weight_decay=section.weight_decay,
        clip=section.clip,
        adam_epsilon=section.adam_epsilon,
        adam_beta2=section.adam_beta2,
        accumulate=section.accumulate,
        precision=precision,
        freeze_embeddings=section.freeze_embeddings,
        seed=plan.seed,
    )


def frame_of(plan: Recipe, tokenizer: Tokenizer, card: ModelCard) -> Frame:
    """The special tokens, segments and limits of this recipe's rows."""
    roles = tokenizer.roles
    return Frame(
        pad=roles.pad,
        start=roles.start,
        separator=roles.separator,
        mask=roles.mask,
        vocabulary=tokenizer.size,
        source_segment=card.source_segment,
        target_segment=card.target_segment,
        max_source=plan.tokens.max_source,
        max_target=plan.tokens.max_target,
    )


def feed_of(plan: Recipe, store: Store, frame: Frame) -> Feed:
    """The examples of a store in this recipe's batches."""
    section = plan.finetune
    corruption = Corruption(
        target=section.target_mask, random=section.random, keep=section.keep, source=section.source_mask
    )
    sources, targets = store.lengths("source"), store.lengths("target")

    def lengths(source: Ints, target: Ints) -> Ints:
        return row_length(section.objective, source, target, frame)

    def order(epoch: int) -> list[Ints]:
        return batches(
            sources, targets, row_length=lengths, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )

    return Feed(store, build(section.objective, corruption), frame, order, plan.seed)


def fingerprint(store: Store) -> str:
    """What tells two training sets apart."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(store.meta, sort_keys=True).encode()).hexdigest()


def validation_of(plan: Recipe, prepared: Prepared, frame: Frame, card: ModelCard) -> Validation | None:
    return None


def finish(fitting: Fitting) -> None:
    """Averages the last checkpoints where the recipe asks for it; the average becomes the best if it is better."""


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
