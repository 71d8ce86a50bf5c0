"""The data of a run before training begins: what is there, what is wanted, and progress while stores are built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from unilmctl import console
from unilmctl import recipe as recipes
from unilmctl.preparation import Progress, SplitReport
from unilmctl.recipe import Recipe, Split, TrainTokens

ReadyT = TypeVar("ReadyT")


def wanted_splits(plan: Recipe) -> dict[str, Split]:
    """The splits that training reads, by name. Built-in data is written; DataError when a file is absent."""
    splits = {name: split for name, split in recipes.splits_of(plan).items() if name != "test"}
    for path in recipes.write_generated(plan):
        console.say(f"wrote {path}")
    recipes.require_files(plan, splits)
    return splits


def wanted_tokenizer(plan: Recipe) -> Path | TrainTokens:
    """The folder of the recipe's vocabulary, or what to train."""
    tokenizer = plan.tokens.train or plan.tokenizer
    assert tokenizer is not None, "the schema asks for one of the two"
    return tokenizer


def tell(report: Mapping[str, SplitReport]) -> None:
    """Says what was built, and which lines were bad."""
    for name, one in report.items():
        if one.built:
            console.say(f"{name}: {one.examples:,} examples ({one.built})")
        if one.bad:
            console.warn(f"{name}: {one.bad:,} bad lines, the first: {'; '.join(one.bad_lines[:1])}")


def with_progress(prepare: Callable[[Progress], ReadyT]) -> ReadyT:
    """Runs `prepare`, and shows how far it is."""
    with console.progress("preparing", unit="lines") as advance:
        done: dict[str, int] = {}

        def tell(stage: str, count: int, _: int | None) -> None:
            advance(count - done.get(stage, 0))
            done[stage] = count

        return prepare(tell)
