"""Pydantic's findings as sentences: what is wrong, what was found, and which key was probably meant."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from unilmctl.recipe.schema import Recipe
from unilmctl.recipe.section import Section
from unilmctl.recipe.syntax import Document, Mistake, Path, dotted

_SENTENCES = {
    "missing": "required, but absent",
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text (put it in quotes)",
    "path_type": "must be a path",
    "string_pattern_mismatch": "must look like {pattern}",
    "list_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
_WITHOUT_VALUE = {"missing", "string_too_short", "too_short"}


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a key opens, or None for a plain value."""
    return next((kind for kind in _kinds(field.annotation) if issubclass(kind, Section)), None)


def _kinds(annotation: Any) -> Iterator[type]:
    """The plain types that an annotation is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def walk(section: type[Section] = Recipe, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every key of the schema with its path, sections included, in the order in which they are written."""
    for name, field in section.model_fields.items():
        yield (*path, name), field
        inner = section_of(field)
        if inner is not None:
            yield from walk(inner, (*path, name))


def from_pydantic(error: ValidationError, document: Document) -> list[Mistake]:
    """One mistake for each finding, placed at the key (unknown keys) or at the value (all others)."""
    mistakes = []
    for finding in error.errors(include_url=False):
        path = finding["loc"]
        unknown = finding["type"] == "extra_forbidden"
        text = _unknown(path) if unknown else _sentence(finding)
        mistakes.append(Mistake(document.place(path, of_key=unknown), f"{dotted(path) or 'recipe'}: {text}"))
    return mistakes


def _sentence(finding: ErrorDetails) -> str:
    kind, context, value = finding["type"], finding.get("ctx", {}), finding["input"]
    if kind == "literal_error":
        choices = [str(choice) for choice in _choices(finding["loc"])]
        return f"must be one of {', '.join(choices)}; got {_shown(value)}{_guess(str(value), choices)}"
    sentence = _SENTENCES.get(kind, finding["msg"]).format(**{key: _plain(bound) for key, bound in context.items()})
    return sentence if kind in _WITHOUT_VALUE else f"{sentence}; got {_shown(value)}"


def _plain(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "nothing (null)", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(path: Path) -> str:
    around = tuple(part for part in path[:-1] if isinstance(part, str))
    names = {inside[-1]: inside for inside, _ in walk() if inside[:-1] == around}
    wrong = str(path[-1])
    if close := _guess(wrong, list(names)):
        return f"unknown key{close}"
    elsewhere = [f"'{'.'.join(inside)}'" for inside, _ in walk() if inside[-1] == wrong]
    return f"unknown key; did you mean {' or '.join(elsewhere)}?" if 1 <= len(elsewhere) <= 2 else "unknown key"


def _guess(wrong: str, known: list[str]) -> str:
    close = get_close_matches(wrong.replace("-", "_"), known, n=1) or get_close_matches(wrong.lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _choices(path: Path) -> list[Any]:
    names = tuple(part for part in path if isinstance(part, str))
    field = next(field for inside, field in walk() if inside == names)
    return list(_literals(field.annotation))


def _literals(annotation: Any) -> Iterator[Any]:
    for inner in get_args(annotation):
        if isinstance(inner, str | int):
            yield inner
        else:
            yield from _literals(inner)
