"""Whether a run folder belongs to this recipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unilmctl.errors import RecipeError

_OF_TRAINING = (
    "steps",
    "evaluate_every",
    "evaluate_examples",
    "save_every",
    "keep_last",
    "average_last",
    "log_every",
    "block_masks",
    "device",
    "threads",
    "sharding",
    "tensorboard",
)
FREE = (
    *("run", "data.test", "data.fetch", "data.store", "generate", "evaluate"),
    *(f"{section}.{key}" for section in ("finetune", "pretrain") for key in _OF_TRAINING),
)
"""Keys that may change in the middle of a run: they do not change what has been trained so far."""


def check_same_run(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """RecipeError that names what changed between two resolved recipes, when the run cannot go on with the new one."""
    changes = [
        f"{key} was {before!r}, is {after!r}"
        for key, before, after in _differences(old, new)
        if not any(key == free or key.startswith(f"{free}.") for free in FREE)
    ]
    if changes:
        more = f", and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise RecipeError(
            f"{folder} holds a run of a different recipe: {'; '.join(changes[:5])}{more}",
            "start over with --fresh, or give this recipe another `run` folder",
        )


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new
