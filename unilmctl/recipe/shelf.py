"""The recipes that come with the program, and the files that a recipe asks for."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import unilmctl
from unilmctl import examples
from unilmctl.errors import DataError, RecipeError
from unilmctl.recipe.schema import Recipe, Split


class Listed(NamedTuple):
    """A recipe on the shelf: its name, its file, the command of its first line and the sentence of its second."""

    name: str
    path: Path
    command: str
    about: str


def shelf() -> Path:
    """Folder of the recipes: inside an installed package, or beside it in a checkout."""
    package = Path(unilmctl.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def list_recipes() -> list[Listed]:
    """The recipes that come with the program, by name."""
    listed = []
    for path in sorted(shelf().glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()[:2]
        command, about = (line.lstrip("# ").rstrip() for line in (*lines, "", "")[:2])
        listed.append(Listed(path.stem, path, command, about))
    return listed


def find_recipe(name: str | Path) -> Path:
    """Path of a recipe: an existing file as it is, or a bare name such as `e2e` on the shelf."""
    path = Path(name)
    if there(path.is_file):
        return path
    on_shelf = shelf() / f"{path.stem}.yaml"
    if str(path) == path.stem and there(on_shelf.is_file):
        return on_shelf
    if there(path.is_dir):
        raise RecipeError(f"{path}: a folder, not a recipe")
    if there(on_shelf.is_file):
        raise RecipeError(f"{path}: no such file", f"'{path.stem}' comes with the program: name it without a folder")
    names = ", ".join(recipe.name for recipe in list_recipes())
    raise RecipeError(f"{path}: no such recipe", f"a path, or one of: {names}")


def there(question: Callable[[], bool]) -> bool:
    """What `question` says of a path; what cannot be a name, because it is too long, is not there."""
    try:
        return question()
    except OSError:
        return False


def splits_of(recipe: Recipe) -> dict[str, Split]:
    """The splits that a recipe has, by name."""
    found = {name: getattr(recipe.data, name) for name in ("train", "valid", "test")}
    return {name: split for name, split in found.items() if split is not None}


def missing_files(recipe: Recipe, splits: Iterable[str] = ("train", "valid", "test")) -> list[Path]:
    """The files of these splits that are not there, in the order of the recipe; `-` (standard input) always is."""
    wanted = []
    for name, split in (pair for lesson in recipe.lessons for pair in lesson.splits.items()):
        if name in set(splits):
            wanted += [*split.files, *(split.target_files or [])]
    return [path for path in wanted if str(path) != "-" and not there(path.exists)]


def require_files(recipe: Recipe, splits: Iterable[str] = ("train", "valid", "test")) -> None:
    """Raises a DataError of one line when files are absent: which, for which recipe, and where they come from."""
    missing = missing_files(recipe, list(splits))
    if not missing:
        return
    names = ", ".join(map(str, missing[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    hint = f"the data: {' '.join(recipe.data.fetch.split())}" if recipe.data.fetch else None
    raise DataError(f"{names}: no such file, and {recipe.origin} needs it", hint)


def write_generated(recipe: Recipe) -> list[Path]:
    """Writes the absent files of built-in data; gives those that were written, none when the data is not built in."""
    if recipe.data.generated is None:
        return []
    files = {name: split.files[0] for name, split in splits_of(recipe).items()}
    return examples.write_missing(recipe.data.generated, files)
