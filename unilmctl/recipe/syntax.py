"""YAML 1.2 text to plain values, with the place of every key and value.

PyYAML reads the structure; what a scalar means is decided here by the core schema of YAML 1.2, so `1e-4` is a number,
`no` and `12:30` are text and `010` is ten. Tags are refused (nothing in a recipe names code), so are keys that appear
twice; depth and size are bounded, which also bounds aliases that multiply.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

LARGEST_FILE = 200_000  # bytes
DEEPEST = 50
MOST_VALUES = 10_000

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_OCTAL = re.compile(r"0o[0-7]{1,300}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class Place(NamedTuple):
    """A position in a file (line and column count from 1), or an override, which has neither."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"


class Mistake(NamedTuple):
    """One thing that is wrong, and where."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass
class Document:
    """A mapping that was read, the places of its keys and of its values, and what was wrong in it."""

    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    places: dict[Path, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: Path, *, of_key: bool = False) -> Place:
        """Place of the key or value at `path`, or of the nearest thing around it that was written down."""
        for length in range(len(path), -1, -1):
            here = path[:length]
            if of_key and here in self.keys:
                return self.keys[here]
            if here in self.places:
                return self.places[here]
        return Place("the recipe")


def resolve(text: str) -> Any:
    """The value of a plain (unquoted) scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def is_text(text: str) -> bool:
    """Whether it can be written down: it holds no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with a bound on the depth, and a note of every tag."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.tags: list[tuple[str, yaml.Mark]] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.tags.append((tag, event.start_mark))
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} levels deep", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and not is_text(node.value):
            raise yaml.MarkedYAMLError(problem="half of a surrogate pair", problem_mark=event.start_mark)
        self.depth -= 1
        return node


class _Reading:
    """Turns nodes into values and notes the places."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.document = Document()
        self.left = MOST_VALUES

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.left -= 1
        if self.left < 0 or len(path) > DEEPEST:
            raise yaml.MarkedYAMLError(problem="too many values (aliases multiply?)", problem_mark=node.start_mark)
        self.document.places[path] = self.place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return dict(self.pairs(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return resolve(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else node.value

    def pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        seen: dict[str, Place] = {}
        for key, value in node.value:
            place = self.place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self.document.mistakes.append(Mistake(place, "a key must be a word"))
                continue
            name = str(key.value)
            if name in seen:
                text = f"{dotted((*path, name))}: this key is there twice, first in line {seen[name].line}"
                self.document.mistakes.append(Mistake(place, text))
                continue
            seen[name] = place
            self.document.keys[(*path, name)] = place
            yield name, self.value(value, (*path, name))

    def place(self, mark: yaml.Mark) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)


def path_of(key: str) -> Path:
    """`a.0.b` as `("a", 0, "b")`: a number is a place in a list."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def dotted(path: Path) -> str:
    """`("data", "train", "files", 0)` as `data.train.files[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(text: str, *, file: str) -> tuple[Any, Document]:
    """Reads one YAML document: its value (of any type) and a `Document` that holds the places and the mistakes.

    What keeps YAML from being read at all comes back as a single mistake; `value` is then None.
    """
    reading = _Reading(file)
    document = reading.document
    try:
        composer = _Composer(text)
        node = composer.get_single_node()
        document.mistakes += [
            Mistake(reading.place(mark), f"the tag '{_short(tag)}' is refused: a recipe holds plain values")
            for tag, mark in composer.tags
        ]
        value = None if node is None else reading.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file) if mark is None else reading.place(mark)
        document.mistakes.append(Mistake(place, f"not valid YAML: {_reason(error)}"))
        value = None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        document.mistakes.append(
            Mistake(place, f"not valid YAML: character U+{ord(text[error.position]):04X} is not allowed")
        )
        value = None
    except (ValueError, OverflowError) as error:  # numbers of characters and versions, which PyYAML does not bound
        place = reading.place(composer.get_mark())
        document.mistakes.append(Mistake(place, f"not valid YAML: {str(error)[:100]}"))
        value = None
    return value, document


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "the structure is broken"
    if r"\t" in problem:
        return "a tab cannot indent; use blanks"
    if "<stream end>" in problem:
        return "the text ends too early"
    if "single document" in (error.context or ""):
        return "a second document ('---'); a recipe is one"
    return problem


def decode(data: bytes, *, file: str) -> tuple[str, list[Mistake]]:
    """Bytes as UTF-8 text (a byte order mark is dropped), or the mistake with its place."""
    if len(data) > LARGEST_FILE:
        return "", [Mistake(Place(file), f"a recipe has at most {LARGEST_FILE:,} bytes, this file has more")]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", errors="replace")
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return "", [Mistake(place, f"not UTF-8: byte 0x{error.object[error.start]:02x}")]


def dump(values: dict[str, Any]) -> str:
    """Plain values as YAML that reads back the same here and in every YAML 1.2 parser."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, which also quotes the text that YAML 1.2 would take for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "'" if not isinstance(resolve(text), str) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
