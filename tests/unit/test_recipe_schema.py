"""Recipes: every key of the schema, made wrong in every way; and texts that nobody thought of."""

import math
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_texts import mistakes

from unilmctl.errors import RecipeError
from unilmctl.metrics import BLEU_TOKENIZERS, GROUPS, NAMES, TASKS
from unilmctl.model.config import ACTIVATIONS
from unilmctl.recipe import load, syntax, walk
from unilmctl.recipe.mistakes import section_of
from unilmctl.recipe.values import Criterion, Metric, Task

KEYS = dict(walk())
LEAVES = {path: field for path, field in KEYS.items() if section_of(field) is None}
BASE: dict[str, Any] = {
    "data": {"train": {"files": ["a"]}, "valid": {"files": ["b"]}, "test": {"files": ["c"]}},
    "model": {"architecture": "bert"},
    "tokens": {"train": {"kind": "bpe"}},
    "finetune": {"distil": {"teacher": "t"}},
}
TEXT: dict[str, Any] = {
    **{name: BASE[name] for name in ("data", "model", "tokens")},
    "pretrain": {"mix": {"objective": "causal"}},
}
STAGES = {**TEXT, "pretrain": {"steps": 2000, "stages": {"steps": 2000, "mix": {"objective": "causal"}}}}
ROWS = {"rows": {"name": "mine", "choose": {"field": "text"}, "parts": {"take": "text", "time": "0"}}}
SPLIT = {"files": ["d"], "second": "more"}
MORE = {"name": "more", "task": "classify", "data": {"train": SPLIT, "valid": SPLIT}}
SEVERAL = {"tasks": MORE, "finetune": {"task": "classify"}}
LISTS = {path for path, field in KEYS.items() if section_of(field) and "list[" in str(field.annotation)}
"""Sections that stand in a list; here there is one item in each."""


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Kind(NamedTuple):
    """What a key takes: the plain type, the choices and the bounds."""

    type: Any
    choices: tuple[Any, ...]
    bounds: dict[str, Any]


def kind(path: tuple[str, ...]) -> Kind:
    parts = [*flat(LEAVES[path].annotation), *LEAVES[path].metadata]
    choices = tuple(choice for part in parts if get_origin(part) is Literal for choice in get_args(part))
    plain = [part for part in parts if isinstance(part, type) and part is not type(None)]
    marks = [mark for part in parts for mark in (part, *getattr(part, "metadata", ()))]
    bounds = {name: getattr(mark, name) for mark in marks for name in ("ge", "gt", "le", "lt") if hasattr(mark, name)}
    return Kind(list if list in plain else str if choices else plain[0], choices, bounds)


def flat(annotation: Any) -> Iterator[Any]:
    """An annotation without its unions and wrappers: plain types, Literals, and what Annotated adds."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        for inner in get_args(annotation):
            yield from flat(inner)
    elif origin in (list, dict):
        yield origin
    else:
        yield annotation


def render(path: tuple[str, ...], line: str) -> tuple[str, int, int]:
    """A sound recipe with `line` at `path`; the text, and where the line stands (from 1)."""
    lines: list[str] = []
    found = (0, 0)

    def block(values: dict[str, Any], here: tuple[str, ...]) -> None:
        nonlocal found
        indent, first = "  " * len(here), len(lines)
        if here == path[:-1]:
            found = (len(lines) + 1, len(indent) + 1)
            lines.append(indent + line)
        for key, value in values.items():
            if (*here, key) == path:
                continue
            if isinstance(value, dict):
                lines.append(f"{indent}{key}:")
                block(value, (*here, key))
            else:
                lines.append(f"{indent}{key}: {value}".replace("'", ""))
        if here in LISTS:
            lines[first] = f"{indent[:-2]}- {lines[first][len(indent) :]}"

    values = STAGES if path[:2] == ("pretrain", "stages") else TEXT if path[0] == "pretrain" else BASE
    values = TEXT | ROWS if path[0] == "rows" else BASE | SEVERAL if path[0] == "tasks" else values
    for length in range(1, len(path)):
        values = {**values}
        holder = values
        for part in path[: length - 1]:
            holder[part] = {**holder[part]}
            holder = holder[part]
        holder.setdefault(path[length - 1], {})
    block(values, ())
    return "\n".join(lines) + "\n", *found


def dotted(path: tuple[str, ...]) -> str:
    """How a mistake names a key."""
    return syntax.dotted(tuple(p for end in range(1, len(path) + 1) for p in numbered(path[:end], len(path))))


def numbered(path: tuple[str, ...], length: int) -> tuple[str | int, ...]:
    """The last part of a path, and the place in the list where more follows."""
    return (path[-1], 0) if path in LISTS and len(path) < length else (path[-1],)


def expect(path: tuple[str, ...], value: str, said: str) -> None:
    """Writing `value` at the key is refused with one line that shows the place of the value."""
    text, line, column = render(path, f"{path[-1]}: {value}")
    (mistake,) = mistakes(text)
    assert mistake.startswith(f"r.yaml:{line}:{column + len(path[-1]) + 2}: {dotted(path)}: {said}"), mistake


def names(paths: Any) -> list[Any]:
    return [pytest.param(path, id=".".join(path)) for path in paths]


@pytest.mark.parametrize("path", names(LEAVES))
def test_a_value_of_the_wrong_type_is_refused(path: tuple[str, ...]) -> None:
    expected = kind(path)
    said = {
        int: "must be a whole number; got 'some'",
        float: "must be a number; got 'some'",
        bool: "must be true or false; got 'some'",
        list: "must be a list, such as [a, b]; got 'some'",
        dict: "must be a mapping of keys to values; got 'some'",
    }
    if expected.choices:
        expect(path, "2.5", "must be one of ")
    elif expected.type in said:
        expect(path, "some", said[expected.type])
    else:
        expect(path, "2.5", "must be a path; got 2.5" if expected.type is Path else "must be text (put it in quotes)")


@pytest.mark.parametrize("path", names(path for path in LEAVES if kind(path).type in (int, float)))
def test_every_number_has_bounds_that_hold(path: tuple[str, ...]) -> None:
    bounds = kind(path).bounds
    assert set(bounds) & {"ge", "gt"}, "a lower bound"
    for name, bound in bounds.items():
        outside = {"ge": bound - 1, "gt": bound, "le": bound + 1, "lt": bound}[name]
        word = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}[name]
        expect(path, str(outside), f"must be {word} {bound:g}" if bound < 1000 else f"must be {word} {int(bound)}")


@pytest.mark.parametrize("path", names(path for path in LEAVES if kind(path).choices))
def test_a_choice_that_does_not_exist_is_refused(path: tuple[str, ...]) -> None:
    choices = [str(choice) for choice in kind(path).choices]
    near = choices[0] + choices[0][-1]
    expect(path, near, f"must be one of {', '.join(choices)}; got '{near}'; did you mean '{choices[0]}'?")


@pytest.mark.parametrize("path", names(KEYS))
def test_a_misspelt_key_is_refused_with_its_neighbour(path: tuple[str, ...]) -> None:
    wrong = path[-1][:-2] + path[-1][-1] + path[-1][-2] + "x" if len(path[-1]) > 3 else path[-1] + "x"
    text, line, column = render(path, f"{wrong}: 1")
    name = dotted((*path[:-1], wrong))
    found = mistakes(text)
    (mistake,) = [line for line in found if f"{name}: unknown key" in line]
    assert mistake.startswith(f"r.yaml:{line}:{column}: {name}: unknown key; did you mean '")


@pytest.mark.parametrize("path", names(LEAVES))
def test_a_key_that_comes_twice_is_refused(path: tuple[str, ...]) -> None:
    indent = "  " * (len(path) - 1)
    text, line, column = render(path, f"{path[-1]}: 1\n{indent}{path[-1]}: 2")
    said = f"r.yaml:{line + 1}:{column}: {dotted(path)}: this key is there twice, first in line {line}"
    assert said in mistakes(text)


@pytest.mark.parametrize("path", names(path for path, field in KEYS.items() if section_of(field)))
def test_a_section_must_be_a_mapping(path: tuple[str, ...]) -> None:
    text, line, column = render(path, f"{path[-1]}: 2.5")
    what = "a list, such as [a, b]" if path in LISTS else "a mapping of keys to values"
    assert f"r.yaml:{line}:{column + len(path[-1]) + 2}: {dotted(path)}: must be {what}; got 2.5" in mistakes(text)


def test_every_key_explains_itself() -> None:
    assert len(KEYS) > 90
    for path, field in KEYS.items():
        assert field.description, path
        assert field.description[0].isupper() or field.description[0] in "`a", path
        assert field.description.endswith("."), path


def test_the_closed_lists_are_those_of_the_rooms_below() -> None:
    assert set(literal(Metric)) == {*NAMES, *GROUPS}
    assert set(literal(Criterion)) == {"loss", *NAMES}
    assert set(literal(Task)) == set(TASKS)
    assert set(kind(("evaluate", "tokenize")).choices) == set(BLEU_TOKENIZERS)
    assert set(kind(("model", "activation")).choices) == set(ACTIVATIONS)


def literal(annotation: Any) -> Iterator[Any]:
    return iter(get_args(annotation))


PIECES = ["data:", "  train:", "{files: [a]}", "\n", "model: {init: m}", "null", "[]", "  ", "5"]
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("019eE.+-xo~nultrefas:#'\" \n\té一\x07\u2028", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab~1.-: é"), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text("abc"), PLAIN, max_size=3))
def test_what_is_dumped_reads_back_the_same(values: dict[str, Any]) -> None:
    text = syntax.dump(values)
    read, document = syntax.parse(text, file="x")
    assert document.mistakes == []
    assert read == values
    assert [type(value) for value in read.values()] == [type(value) for value in values.values()]


@settings(deadline=None, max_examples=50)
@given(st.floats() | st.integers(min_value=-(10**200), max_value=10**200))
def test_numbers_are_read_as_python_writes_them(number: float) -> None:
    text = repr(number).replace("inf", ".inf").replace("nan", ".nan")
    read = syntax.resolve(text)
    assert read == number or (math.isnan(read) and math.isnan(number))


@settings(deadline=None, max_examples=50)
@given(
    st.binary(max_size=60)
    | st.text("abc:-[]{}&*!|>'\"#%@`,? \n\t\\0123~<", max_size=60).map(str.encode)
    | st.lists(
        st.sampled_from(["data:", "  train:", "{files: [a]}", "\n", "model: {init: m}", "null", "[]", "  ", "5"])
    )
    .map("".join)
    .map(str.encode)
)
def test_no_text_brings_the_loader_down(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text)
    try:
        load(path)
    except RecipeError as error:
        for line in error.message.splitlines():
            assert re.match(rf"{re.escape(str(path))}(:\d+:\d+)?: ", line)
