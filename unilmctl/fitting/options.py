"""What the keys of a recipe mean in the terms of training."""

import hashlib
import json
from typing import Literal

from unilmctl.data.store import Store
from unilmctl.model.devices import device_named
from unilmctl.objectives import Corruption, CustomRow, parse_row
from unilmctl.recipe import Recipe, Training
from unilmctl.training import TrainOptions, prefers_bfloat16


def train_options(section: Training, seed: int) -> TrainOptions:
    """A recipe's section on training as the training loop wants it."""
    precision: Literal["float32", "bfloat16"]
    if section.precision == "auto":
        precision = "bfloat16" if prefers_bfloat16(device_named(section.device)) else "float32"
    else:
        precision = section.precision
    return TrainOptions(
        steps=section.steps,
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup=section.warmup,
        label_smoothing=0.1 if section.label_smoothing is None else section.label_smoothing,
        class_smoothing=section.label_smoothing or 0.0,
        weight_decay=section.weight_decay,
        clip=section.clip,
        adam_epsilon=section.adam_epsilon,
        adam_beta2=section.adam_beta2,
        accumulate=section.accumulate,
        precision=precision,
        freeze_embeddings=section.freeze_embeddings,
        freeze=tuple(section.freeze),
        checkpoint_activations=section.checkpoint_activations,
        block_masks=section.block_masks,
        seed=seed,
    )


def custom_row(plan: Recipe, name: str, corruption: Corruption) -> CustomRow:
    """The recipe's row of that name; RecipeError, with its place, when it makes no sense or shows its answers."""
    number = [row.name for row in plan.rows or ()].index(name)
    return parse_row(plan.row(name).written(), name, corruption, place=plan.place(f"rows.{number}"))


def fingerprint(store: Store) -> str:
    """What tells two training sets apart: the sha256 of what the store was made from."""
    return hashlib.sha256(json.dumps(store.meta, sort_keys=True).encode()).hexdigest()
