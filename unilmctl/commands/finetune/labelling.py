"""Fine-tuning that ends in a label: the data, the head, the rows, and what is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from unilmctl import console, metrics, preparation
from unilmctl.commands.finetune.ingredients import adapting_of, frame_of
from unilmctl.data.batching import batches, packed_batches
from unilmctl.data.labelled import CLASSIFY, LABEL, number_of
from unilmctl.data.store import Store
from unilmctl.errors import RecipeError
from unilmctl.fitting import Fitting, Stage, begun, fingerprint, resume, train_options, with_dropout
from unilmctl.fitting.preparing import wanted_splits, wanted_tokenizer, with_progress
from unilmctl.generation import Labeller, Opened
from unilmctl.model import Encoder, HeadConfig
from unilmctl.model.adapters import adapt
from unilmctl.objectives import Corruption, labelled, labelled_length
from unilmctl.preparation import PreparedLabels
from unilmctl.recipe import Recipe
from unilmctl.rows import Frame, Ints, Labelled
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed, TrainOptions, build_optimizer, evaluate_loss
from unilmctl.training.averages import Averages
from unilmctl.training.distributed import Processes
from unilmctl.training.sharding import shard
from unilmctl.weights import LabelTask, ModelCard, load_model
from unilmctl.weights.adapting import with_heads

MEASURED = {"classify": ("accuracy", "macro_f1"), "regress": ("pearson", "spearman")}
"""What is measured unless the recipe says it."""

SHOWN = 3
"""Examples that an evaluation keeps in the log."""


def prepare(plan: Recipe) -> PreparedLabels:
    """The tokenizer, the stores of the training and validation splits, and the labels."""
    splits, tokenizer = wanted_splits(plan), wanted_tokenizer(plan)
    prepared = with_progress(
        lambda progress: preparation.prepare_labelled(
            folder=plan.store,
            splits=splits,
            limits=plan.tokens,
            tokenizer=tokenizer,
            task=plan.finetune.task,
            on_bad_line=plan.data.on_bad_line,
            progress=progress,
        )
    )
    for name, report in prepared.report.items():
        if report.built:
            console.say(f"{name}: {report.examples:,} examples ({report.built})")
        if report.bad:
            console.warn(f"{name}: {report.bad:,} bad lines, the first: {'; '.join(report.bad_lines[:1])}")
    return prepared


def assemble(
    plan: Recipe, folder: RunFolder, prepared: PreparedLabels, signals: StopSignals, processes: Processes
) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    section = plan.finetune
    checkpoint, problems = processes.from_first(folder.newest)
    notes = [f"a checkpoint is broken and left out: {problem}" for problem in problems]
    if checkpoint is None:
        (encoder, card), more = begun(plan, prepared.tokenizer, positions=plan.tokens.max_source)
        notes += [note for note in more if "language-model head" not in note]
        encoder = with_heads(encoder, [head_of(plan, prepared.labels)], torch.Generator().manual_seed(plan.seed))
    else:
        encoder, card = load_model(checkpoint)
        encoder = with_dropout(encoder, plan.model)
    card = trained_card(plan, card)
    for note in notes if processes.first else ():
        console.warn(note)
    if (adapting := adapting_of(plan)) is not None:
        adapt(encoder, adapting, seed=plan.seed)
    encoder.to(processes.device)
    if section.sharding == "full" and processes.size > 1:
        shard(encoder, processes)
    options = train_options(section, plan.seed)
    frame = frame_of(plan, prepared.tokenizer, card)
    validation = validation_of(plan, prepared, frame, card)
    fitting = Fitting(
        folder=folder,
        encoder=encoder,
        card=card,
        tokenizer=prepared.tokenizer,
        optimizer=build_optimizer(encoder, options),
        stages=[Stage(options.steps, feed_of(plan, prepared.stores["train"], frame), validation)],
        options=options,
        schedule=section,
        criterion=section.keep_best_by,
        signals=signals,
        data=fingerprint(prepared.stores["train"]),
        processes=processes,
        averages=None if section.ema is None else Averages(encoder, section.ema),
    )
    if checkpoint is not None:
        resume(fitting, checkpoint)
    return fitting


def head_of(plan: Recipe, labels: Sequence[str]) -> HeadConfig:
    """The head of the recipe's task, called as the task is."""
    task = plan.finetune.task
    if task == CLASSIFY and len(labels) < 2:
        raise RecipeError(
            f"{plan.origin}: data.train.target: all lines have the label '{labels[0]}'",
            "there is nothing to choose: is it the right field?",
        )
    return HeadConfig(task, "class", len(labels), tuple(labels)) if labels else HeadConfig(task, "regression", 1)


def trained_card(plan: Recipe, card: ModelCard) -> ModelCard:
    """The card of the models that this recipe makes: what the starting model's says, and the task."""
    split, name = plan.data.train, plan.finetune.task
    return replace(
        card,
        max_source=plan.tokens.max_source,
        truncate=plan.tokens.truncate,
        tasks={**card.tasks, name: LabelTask(task=name, source=split.source, second=split.second)},
    )


@dataclass(frozen=True)
class Examples:
    """The examples of a store as rows want them."""

    store: Store
    task: str

    def __getitem__(self, index: int) -> Labelled:
        source, target, *_ = self.store[index]
        value = self.store.field(LABEL, index)
        return Labelled(source, target, value if self.task == CLASSIFY else np.array([number_of(value)]))


def feed_of(plan: Recipe, store: Store, frame: Frame) -> Feed[Labelled]:
    """The examples of a store in this recipe's batches."""
    section = plan.finetune
    sources, seconds = store.lengths("source"), store.lengths("target")
    corruption = Corruption(random=section.random, keep=section.keep, source=section.source_mask)

    def lengths(source: Ints, target: Ints) -> Ints:
        return labelled_length(source, target, frame)

    def order(epoch: int) -> list[Ints]:
        return (packed_batches if section.pack else batches)(
            sources, seconds, row_length=lengths, batch_tokens=section.batch_tokens, seed=plan.seed, epoch=epoch
        )

    objective = partial(labelled, head=section.task, corruption=corruption)
    return Feed(Examples(store, section.task), objective, frame, order, plan.seed, section.pack or 0)


@dataclass(frozen=True)
class Validation:
    """What is measured on the validation split; `texts` are sources and seconds as ids, `truths` their labels."""

    feed: Feed[Labelled]
    options: TrainOptions
    say: Callable[[Encoder, Sequence[tuple[Sequence[int], Sequence[int]]]], list[str]]
    texts: list[tuple[list[int], list[int]]]
    truths: list[str]
    names: Sequence[str]
    shown: list[str]

    def measure(self, encoder: Encoder, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """`loss` per label, every score by name, and `examples`; None when `stop` said yes."""
        batches = (self.feed.batch(0, indices) for indices in self.feed.order(0))
        loss = evaluate_loss(encoder, batches, self.options, stop=stop)
        if loss is None or stop():
            return None
        said = self.say(encoder, self.texts)
        scores = metrics.evaluate(said, [[truth] for truth in self.truths], names=self.names)
        rows = zip(self.shown, said, self.truths, strict=False)
        examples = [{"source": source, "output": label, "reference": truth} for source, label, truth in rows]
        return {"loss": loss, **scores, "examples": examples}


def validation_of(plan: Recipe, prepared: PreparedLabels, frame: Frame, card: ModelCard) -> Validation | None:
    """What is measured during training; None for a recipe without a validation split."""
    split, section = plan.data.valid, plan.finetune
    if split is None:
        return None
    examples = Examples(prepared.stores["valid"], section.task)
    count = min(section.evaluate_examples or len(examples.store), len(examples.store))
    found = [examples[index * len(examples.store) // count] for index in range(count)]
    wanted = plan.evaluate.metrics if "metrics" in plan.evaluate.model_fields_set else MEASURED[section.task]
    tokenizer, clean = prepared.tokenizer, section.model_copy(update={"source_mask": 0.0})
    return Validation(
        feed=feed_of(plan.model_copy(update={"finetune": clean}), prepared.stores["valid"], frame),
        options=train_options(section, plan.seed),
        say=partial(_said, card=card, tokenizer=tokenizer, name=section.task, batch_tokens=section.batch_tokens),
        texts=[(one.source.tolist(), one.target.tolist()) for one in found],
        truths=[prepared.labels[int(one.label[0])] if prepared.labels else repr(one.label[0].item()) for one in found],
        names=metrics.expand([*wanted, *([] if section.keep_best_by == "loss" else [section.keep_best_by])]),
        shown=[tokenizer.decode(one.source.tolist()) for one in found[:SHOWN]],
    )


def _said(
    encoder: Encoder,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    card: ModelCard,
    tokenizer: Tokenizer,
    name: str,
    batch_tokens: int,
) -> list[str]:
    training = encoder.training
    said = Labeller(Opened(encoder, card, tokenizer), name, batch_tokens=batch_tokens).say(texts)
    encoder.train(training)
    return [one.label for one in said]
