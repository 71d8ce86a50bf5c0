"""A recipe file to a `Recipe`: `extends` chains, overrides, and every mistake in one message.

Later layers win: defaults < extended recipes < the recipe < overrides. Mappings merge, everything else is replaced. A
mistake is shown where its value was written: in the recipe, in the one it extends, or in an override.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unilmctl.errors import RecipeError
from unilmctl.recipe import relations, syntax
from unilmctl.recipe.mistakes import from_pydantic
from unilmctl.recipe.schema import Recipe
from unilmctl.recipe.shelf import find_recipe, there
from unilmctl.recipe.syntax import Document, Mistake, Place

LONGEST_CHAIN = 20


def load(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; `name` is a path, or the bare name of a recipe that comes with the program.

    `overrides` are `section.key=value` texts. Raises a RecipeError that names every mistake with its place.
    """
    path = find_recipe(name)
    document = _read_chain(path, ())
    for override in overrides:
        _apply(document, override)
    document.values.setdefault("run", f"runs/{path.stem}")
    recipe = _checked(document, path)
    recipe._origin, recipe._document = str(path), document  # noqa: SLF001
    return recipe


def dump_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it gives an equal recipe."""
    return syntax.dump(recipe.resolved())


def _checked(document: Document, path: Path) -> Recipe:
    recipe, found, wrong = _validate(document)
    mistakes = [*document.mistakes, *found]
    sound = recipe or _salvage(document.values, wrong)
    if sound is not None:
        mistakes += _broken(sound, document, wrong)
    if mistakes or recipe is None:
        raise _refusal(mistakes, path)
    return recipe


def _validate(document: Document) -> tuple[Recipe | None, list[Mistake], list[syntax.Path]]:
    try:
        return Recipe.model_validate(document.values), [], []
    except ValidationError as error:
        wrong = [finding["loc"] for finding in error.errors(include_url=False)]
        return None, from_pydantic(error, document), wrong


def _salvage(values: dict[str, Any], wrong: list[syntax.Path]) -> Recipe | None:
    """The recipe without its wrong values, which are added to `wrong`; None when nothing sound is left."""
    values = deepcopy(values)
    removing = list(wrong)
    for _ in range(3):
        for path in removing:
            _remove(values, path)
        values.setdefault("data", {}).setdefault("train", {}).setdefault("files", ["-"])
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            removing = [finding["loc"][:-1] for finding in error.errors(include_url=False)]
            wrong += removing
    return None


def _remove(values: dict[str, Any], path: syntax.Path) -> None:
    """Takes out the value at `path`, or the whole list when it is an item of one."""
    holder: Any = values
    for part in path[:-1]:
        if not isinstance(holder.get(part), dict):
            break
        holder = holder[part]
    else:
        part = path[-1]
    holder.pop(part, None)


def _broken(recipe: Recipe, document: Document, wrong: list[syntax.Path]) -> list[Mistake]:
    written = set(_paths(document.values))
    mistakes = []
    for broken in relations.check(recipe, written):
        if any(_touches(path, other) for path in broken.paths for other in wrong):
            continue
        shown = next((path for path in broken.paths if path in written), broken.paths[0])
        mistakes.append(Mistake(document.place(shown), f"{syntax.dotted(broken.paths[0])}: {broken.text}"))
    return mistakes


def _touches(path: syntax.Path, wrong: syntax.Path) -> bool:
    length = min(len(path), len(wrong))
    return path[:length] == wrong[:length]


def _paths(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _paths(value, (*path, key))


def _read_chain(path: Path, chain: tuple[Path, ...]) -> Document:
    """The document of a file, merged over those that it extends."""
    document = _read(path)
    extends = document.values.get("extends")
    if not isinstance(extends, str) or not extends:
        return document
    del document.values["extends"]
    parent = Path(os.path.normpath(path.parent / extends))
    chain = (*chain, path)
    reason = _refused_parent(parent, chain)
    if reason is not None:
        document.mistakes.append(Mistake(document.place(("extends",)), f"extends: {reason}"))
        raise _refusal(document.mistakes, path)
    below = _read_chain(parent, chain)
    below.values.pop("run", None)
    _merge(below, document)
    return below


def _refused_parent(parent: Path, chain: tuple[Path, ...]) -> str | None:
    if not there(parent.is_file):
        return f"no such file: {parent}"
    if parent.resolve() in [path.resolve() for path in chain]:
        return f"a circle: {' -> '.join(str(path) for path in (*chain, parent))}"
    if len(chain) >= LONGEST_CHAIN:
        return f"more than {LONGEST_CHAIN} recipes in a chain"
    return None


def _read(path: Path) -> Document:
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(syntax.LARGEST_FILE + 1)
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read: {error.strerror}") from error
    text, mistakes = syntax.decode(data, file=file)
    if mistakes:
        raise _refusal(mistakes, path)
    value, document = syntax.parse(text, file=file)
    if isinstance(value, dict):
        document.values = value
        return document
    if not document.mistakes:
        found = "is empty" if value is None else f"is {'a list' if isinstance(value, list) else 'a single value'}"
        place = document.places.get((), Place(file, 1, 1))
        document.mistakes.append(Mistake(place, f"the file {found}; a recipe is a mapping of keys to values"))
    raise _refusal(document.mistakes, path)


def _apply(document: Document, override: str) -> None:
    """Merges one `section.key=value` over the document."""
    place = Place(f"--set {override}")
    name, equals, text = override.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not syntax.is_text(override):
        document.mistakes.append(Mistake(place, "is not UTF-8 text"))
        return
    if not equals or not all(path):
        document.mistakes.append(Mistake(place, "an override is written section.key=value"))
        return
    if path[0] == "extends":
        document.mistakes.append(Mistake(place, "extends is read from the file; it cannot be set"))
        return
    value, inner = syntax.parse(text, file="")
    document.mistakes += [Mistake(place, mistake.text) for mistake in inner.mistakes]
    if inner.mistakes:
        return
    for length in range(1, len(path)):
        document.keys.setdefault(path[:length], place)
        document.places.setdefault(path[:length], place)
    top = Document(keys={path: place}, places={path: place})
    top.keys |= {(*path, *below): place for below in inner.keys}
    top.places |= {(*path, *below): place for below in inner.places}
    for part in reversed(path):
        value = {part: value}
    top.values = value
    _merge(document, top)


def _merge(base: Document, top: Document) -> None:
    """Lays `top` over `base`: mappings merge, everything else is replaced; places go with the values."""
    base.values = _merged(base.values, top.values)
    base.keys |= top.keys
    base.places |= top.places
    base.mistakes += top.mistakes


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _refusal(mistakes: Iterable[Mistake], path: Path) -> RecipeError:
    """One error for all mistakes: those of the recipe first, then those it extends, then the overrides."""

    def order(mistake: Mistake) -> tuple[bool, bool, str, int, int]:
        file, line, column = mistake.place
        return line is None, file != str(path), file, line or 0, column or 0

    lines = [str(mistake) for mistake in sorted(mistakes, key=order)]
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return RecipeError("\n".join(lines), f"{count}; docs/recipes.md describes every key")
