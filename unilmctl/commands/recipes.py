"""`unilmctl recipes`: the recipes that come with the program, and a check of anybody's. Never loads torch."""

from collections.abc import Sequence
from pathlib import Path

from unilmctl import console
from unilmctl import recipe as room
from unilmctl.errors import UsageError
from unilmctl.files import write_atomically


def run_list() -> None:
    """One line a recipe: its name, and what it is for."""
    console.table(["recipe", "what it does"], [[entry.name, entry.about] for entry in room.list_recipes()])


def run_show(*, recipe: str, settings: Sequence[str]) -> None:
    """The recipe as it will run: every default written out, overrides applied. Raises RecipeError."""
    console.emit(room.dump_yaml(room.load(recipe, settings)).rstrip("\n"))


def run_copy(*, recipe: str, destination: Path) -> None:
    """Copies a recipe, comments and all; raises UsageError when the file exists already, WriteError when it cannot."""
    source = room.find_recipe(recipe)
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise UsageError(f"{target}: exists already", "name another file, or remove it")
    with write_atomically(target) as file:
        file.write(source.read_bytes())
    command = "pretrain" if b"\npretrain:" in target.read_bytes() else "finetune"
    console.say(f"{target}: a copy of {source.stem}; change its data paths, then: unilmctl {command} {target}")


def run_check(*, recipe: str, settings: Sequence[str]) -> None:
    """Raises a RecipeError with every mistake, a DataError naming absent files; says so when there is neither."""
    loaded = room.load(recipe, settings)
    if loaded.data.generated is None:
        room.require_files(loaded)
    console.say(f"{loaded.origin}: no mistakes")
