"""Training that ends in labels, and several tasks at once: their data, the heads, the card, the run."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from unilmctl import preparation
from unilmctl.commands.finetune.ingredients import adapting_of, frame_of, validation_of
from unilmctl.commands.finetune.lessons import mixed_feed, objective_of
from unilmctl.commands.finetune.measuring import SeveralMeasures, label_validation_of
from unilmctl.commands.finetune.starting import trained_card
from unilmctl.commands.finetune.teaching import teacher_of
from unilmctl.data.labelled import CLASSIFY, REGRESS, SPAN, TAG, WRITES
from unilmctl.errors import RecipeError
from unilmctl.fitting import (
    Fitting,
    Measures,
    Stage,
    begun,
    fingerprint,
    newest,
    place,
    resume,
    train_options,
    with_dropout,
)
from unilmctl.fitting.preparing import tell, wanted_splits, wanted_tokenizer, with_progress
from unilmctl.model import HeadConfig
from unilmctl.model.adapters import adapt
from unilmctl.model.heads import HeadKind
from unilmctl.objectives import CONTRASTIVE
from unilmctl.preparation import PreparedTasks, TaskData
from unilmctl.recipe import Lesson, Recipe, Split
from unilmctl.rows import Frame
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.training import build_optimizer
from unilmctl.training.averages import Averages
from unilmctl.training.distributed import Processes
from unilmctl.weights import LabelTask, Loaded, ModelCard, load_model
from unilmctl.weights.adapting import with_heads

KINDS: dict[str, HeadKind] = {CLASSIFY: "class", REGRESS: "regression", TAG: "token", SPAN: "span"}
"""The kind of head of each task that ends in a label."""


def prepare(plan: Recipe) -> PreparedTasks:
    """The tokenizer, the stores of the training and validation splits of every task, and their labels."""
    wanted_splits(plan)
    tokenizer = wanted_tokenizer(plan)
    tasks = {one.name: TaskData(one.task, one.store, _read(one)) for one in plan.lessons}
    prepared = with_progress(
        lambda progress: preparation.prepare_tasks(
            folder=plan.store,
            tasks=tasks,
            limits=plan.tokens,
            tokenizer=tokenizer,
            on_bad_line=plan.data.on_bad_line,
            progress=progress,
        )
    )
    tell(prepared.report)
    return prepared


def _read(lesson: Lesson) -> dict[str, Split]:
    return {name: split for name, split in lesson.splits.items() if name != "test"}


def assemble(
    plan: Recipe, folder: RunFolder, prepared: PreparedTasks, signals: StopSignals, processes: Processes
) -> Fitting:
    """Everything that training needs, at the newest checkpoint or at the beginning."""
    plan, lessons = _causal(plan), plan.lessons
    section = plan.finetune
    checkpoint, (encoder, card) = newest(
        folder,
        processes,
        begin=lambda: _starting(plan, lessons, prepared),
        again=lambda path: _resumed(load_model(path), plan),
    )
    card = card_of(plan, lessons, prepared, card)
    if (adapting := adapting_of(plan)) is not None:
        adapt(encoder, adapting, seed=plan.seed, heads=[head.name for head in heads_of(plan, lessons, prepared)])
    place(encoder, section, processes)
    options = replace(train_options(section, plan.seed), head_weights=section.head_weights)
    frame = frame_of(plan, prepared.tokenizer, card)
    trained = {name: task.stores["train"] for name, task in prepared.tasks.items()}
    feed = mixed_feed(plan, lessons, trained, frame)
    teacher = teacher_of(plan, encoder, card, prepared.tokenizer)
    if teacher is not None:
        teacher.encoder.to(processes.device)
    fitting = Fitting(
        folder=folder,
        encoder=encoder,
        card=card,
        tokenizer=prepared.tokenizer,
        optimizer=build_optimizer(encoder, options),
        stages=[Stage(options.steps, feed, _measures(plan, prepared, frame, card))],
        options=options,
        schedule=section,
        criterion=section.keep_best_by,
        signals=signals,
        data=" ".join(map(fingerprint, trained.values())),
        processes=processes,
        teacher=teacher,
        averages=None if section.ema is None else Averages(encoder, section.ema),
        names=[one.name for one in lessons] if len(lessons) > 1 else (),
    )
    if checkpoint is not None:
        resume(fitting, checkpoint)
    return fitting


def head_of(lesson: Lesson, labels: Sequence[str], plan: Recipe) -> HeadConfig | None:
    """The head of a task, called as the task is; None for one that only writes."""
    if lesson.task == "similar":
        return HeadConfig(CONTRASTIVE, "contrastive")
    if lesson.task in WRITES:
        return None
    if lesson.task == CLASSIFY and len(labels) < 2:
        key = f"{lesson.where}.train.target"
        raise RecipeError(
            f"{plan.place(key)}: {key}: all lines have the label '{labels[0]}'",
            "there is nothing to choose: is it the right field?",
        )
    names = tuple(labels) if lesson.task in (CLASSIFY, TAG) else ()
    return HeadConfig(lesson.name, KINDS[lesson.task], len(names) or {REGRESS: 1, SPAN: 2}[lesson.task], names)


def heads_of(plan: Recipe, lessons: Sequence[Lesson], prepared: PreparedTasks) -> list[HeadConfig]:
    """The heads of the tasks that have one."""
    found = [head_of(one, prepared.tasks[one.name].labels, plan) for one in lessons]
    return [head for head in found if head is not None]


def card_of(plan: Recipe, lessons: Sequence[Lesson], prepared: PreparedTasks, card: ModelCard) -> ModelCard:
    """The card of the models that this recipe makes: the starting model's, what it learns to write, and the tasks."""
    known = {**card.tasks, **{one.name: _task(plan, one, prepared) for one in lessons}}
    if any(one.task in WRITES for one in lessons):
        made = trained_card(plan, card)
        return replace(made, tasks=known)
    return replace(card, max_source=plan.tokens.max_source, truncate=plan.tokens.truncate, tasks=known)


def _task(plan: Recipe, lesson: Lesson, prepared: PreparedTasks) -> LabelTask:
    split, labels = lesson.splits["train"], prepared.tasks[lesson.name].labels
    return LabelTask(
        task=lesson.task,
        source=split.source,
        second=split.second,
        stride=plan.tokens.stride if lesson.task == SPAN else None,
        empty=lesson.task == SPAN and bool(labels),
    )


def _causal(plan: Recipe) -> Recipe:
    """The recipe as it is, or where vectors are learnt, with the objective that learns them."""
    if "similar" not in plan.learnt:
        return plan
    return plan.model_copy(update={"finetune": plan.finetune.model_copy(update={"objective": "causal"})})


def _starting(plan: Recipe, lessons: Sequence[Lesson], prepared: PreparedTasks) -> tuple[Loaded, list[str]]:
    """The model that training starts from, with the heads of its tasks."""
    writes = any(one.task in WRITES for one in lessons)
    needed = plan.tokens.max_source + (plan.tokens.max_target if writes else 0)
    (encoder, card), notes = begun(plan, prepared.tokenizer, positions=needed)
    heads = heads_of(plan, lessons, prepared)
    encoder = with_heads(encoder, heads, torch.Generator().manual_seed(plan.seed)) if heads else encoder
    return Loaded(encoder, card), notes if writes else [note for note in notes if "language-model head" not in note]


def _resumed(loaded: Loaded, plan: Recipe) -> Loaded:
    return loaded._replace(encoder=with_dropout(loaded.encoder, plan.model))


def _measures(plan: Recipe, prepared: PreparedTasks, frame: Frame, card: ModelCard) -> Measures | None:
    """What is measured on the validation splits; None where no task has one."""
    found: dict[str, Measures] = {}
    for lesson in plan.lessons:
        task = prepared.tasks[lesson.name]
        split, store = lesson.splits.get("valid"), task.stores.get("valid")
        if split is None or store is None:
            continue
        if lesson.task in WRITES:
            rows = objective_of(lesson)
            # What is measured of the first task by name belongs to it alone.
            own = plan if lesson.where == "data" else _by_loss(plan)
            made: Measures | None = validation_of(own, split, store, frame, card, prepared.tokenizer, rows)
        else:
            made = label_validation_of(plan, lesson, store, task.labels, frame, card, prepared.tokenizer)
        if made is not None:
            found[lesson.name] = made
    if not found:
        return None
    return next(iter(found.values())) if plan.tasks is None else SeveralMeasures(found, plan.finetune.task)


def _by_loss(plan: Recipe) -> Recipe:
    return plan.model_copy(update={"finetune": plan.finetune.model_copy(update={"keep_best_by": "loss"})})
