"""What must hold between the keys on tasks: what is learnt, from which splits, by which heads."""

import re
from collections.abc import Iterator

from unilmctl.recipe.broken import SPLITS, Broken, written_otherwise
from unilmctl.recipe.schema import Data, Recipe, TaskData

TAUGHT = ("generate", "classify", "tag")
"""Tasks that a teacher can teach: it gives every token or label a probability."""


def task_relations(recipe: Recipe, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    """What tasks that end in a label have no use for."""
    heads = {"lm", "contrastive", *recipe.learnt, *(one.name for one in recipe.tasks or ())}
    for head in recipe.finetune.head_weights:
        if head not in heads:
            yield Broken(f"finetune.head_weights.{head} finetune.task tasks", "nothing trains this head")
    if recipe.tasks is None and recipe.finetune.task == "generate":
        for name, _ in written_otherwise(recipe, ("second",)):
            yield Broken(f"data.{name}.second finetune.task", "a second text is for tasks with labels")
        return
    if recipe.finetune.distil is not None and (recipe.tasks is not None or recipe.finetune.task not in TAUGHT):
        what = f"the model learns to {recipe.finetune.task}" if recipe.tasks is None else "several tasks are learnt"
        yield Broken("finetune.distil finetune.task tasks", f"{what} from the data alone")
    if recipe.data.generated is not None and recipe.finetune.task != "generate":
        yield Broken("data.generated finetune.task", "built-in data is to be written, not labelled")
    if "similar" in recipe.learnt and ("finetune", "objective") in written and recipe.finetune.objective != "causal":
        yield Broken("finetune.objective finetune.task tasks", "'similar' writes with the objective causal")
    yield from _task_splits(recipe.finetune.task, recipe.data, "data", "finetune.task")
    yield from _further(recipe)


def _further(recipe: Recipe) -> Iterator[Broken]:
    """Tasks besides the first one."""
    names = [recipe.finetune.task, *(one.name for one in recipe.tasks or ())]
    for number, one in enumerate(recipe.tasks or ()):
        yield from _task_splits(one.task, one.data, f"tasks.{number}.data", f"tasks.{number}.task")
        if one.name in names[: number + 1] or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one.name) or one.name == "lm":
            text = f"'{one.name}' is taken" if one.name in (*names[: number + 1], "lm") else "letters, digits, - and _"
            yield Broken(f"tasks.{number}.name", f"give the task a name of its own: {text}")
    if [recipe.finetune.task, *(one.task for one in recipe.tasks or ())].count("similar") > 1:
        yield Broken("tasks finetune.task", "one task is 'similar' at most: they would share a head")


def _task_splits(task: str, data: Data | TaskData, where: str, key: str) -> Iterator[Broken]:
    """What the splits of one task must have, and must not."""
    for name in SPLITS:
        split = getattr(data, name, None)
        if split is None:
            continue
        if split.target_files is not None and task not in ("generate", "similar"):
            yield Broken(f"{where}.{name}.target_files {key}", "labels stand in the line of their text")
        if split.second is None and task == "span":
            yield Broken(f"{where}.{name}.second {key}", "'span' needs the text in which the answer is: second")
        if split.second is not None and task in ("generate", "tag", "similar"):
            yield Broken(f"{where}.{name}.second {key}", f"a second text is not for '{task}'")
