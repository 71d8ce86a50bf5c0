"""Texts with labels: lines of data files to token ids and labels, bad ones counted (no torch).

A line is a JSON object, or a row under a header that names the columns: a text, perhaps a second one, and a label. What
a label is depends on the task: one of a set of names (`classify`), or a number (`regress`).

Shapes: N examples of a chunk.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.encoding import FIELDS, SHOWN, Coder, Encoded, Tally
from unilmctl.data.parsing import CELLS, Text, decode, field_of, object_of, sound
from unilmctl.data.reading import Line, detect, lines_in
from unilmctl.data.streams import label_of, opened
from unilmctl.errors import DataError
from unilmctl.tokens import Tokenizer

CHUNK = 2000
"""Lines that are encoded at a time."""

_WHOLE = re.compile(r"-?[0-9]{1,100}")

LABEL = "label"
LABELLED_FIELDS = (*FIELDS, LABEL)
"""Fields of a store: the text, the second text (nothing where there is none), and what is to be said of them."""

LARGEST = 3.4e38
"""No float32 is larger, as good as."""

CLASSIFY, REGRESS = "classify", "regress"
"""Tasks: a label's store value is its number; or the bits of a float32 as two numbers of 16 bits, the lower first."""


class LabelColumns(NamedTuple):
    """The names of the fields: keys of a JSON object, or of a header row; `second` is None without a second text."""

    source: str
    second: str | None
    label: str


class LabelledText(NamedTuple):
    """One example as text. `where` is "file:line"."""

    source: Text
    second: Text | None
    label: str
    where: str


class Raw(NamedTuple):
    """A line that is not parsed yet."""

    where: str
    line: bytes
    parse: Callable[[str, str], LabelledText]

    def parsed(self) -> LabelledText:
        """DataError names where."""
        return self.parse(decode(self.line, self.where), self.where)


def labelled_lines(files: Sequence[Path], *, format: str, columns: LabelColumns) -> Iterator[Raw]:
    """The lines of `files`, located but not parsed. format: auto, jsonl, tsv or csv; rows need a header."""
    for file in files:
        with opened(file) as stream:
            lines = lines_in(label_of(file), stream)
            found = detect(file, stream, need_target=True) if format == "auto" else format
            if found == "text":
                raise DataError(
                    f"{label_of(file)}: plain text has no labels", 'JSON lines look like {"text": "...", ...}'
                )
            parse: Callable[[str, str], LabelledText] = partial(_from_json, columns=columns)
            if found != "jsonl":
                header = _header(lines, found, columns, label_of(file))
                parse = partial(_from_row, format=found, header=header)
            for where, line in lines:
                yield Raw(where, line, parse)


def parsed_lines(lines: Iterable[Raw], *, on_bad_line: str) -> Iterator[LabelledText]:
    """The examples of lines; with skip and replace bad ones are passed over, for there is no empty label."""
    for raw in lines:
        try:
            yield raw.parsed()
        except DataError:
            if on_bad_line == "fail":
                raise


@dataclass(frozen=True)
class LabelCoder:
    """Encodes chunks of lines for a task; `labels` are the names that `classify` chooses from, in their order."""

    coder: Coder
    task: str
    labels: tuple[str, ...]
    on_bad_line: str

    @staticmethod
    def of(
        tokenizer: Tokenizer, *, longest: int, keep_end: bool, task: str, labels: Sequence[str], policy: str
    ) -> "LabelCoder":
        """A coder for rows of at most `longest` tokens with their special ones: no text alone is longer."""
        room = {"source": longest - 2, "target": longest - 2}
        return LabelCoder(Coder(tokenizer, room, keep_end), task, tuple(labels), policy)

    def __call__(self, chunk: Sequence[Raw]) -> Encoded:
        """Parse, encode, cut and count. DataError names the line."""
        tally = Tally()
        found = [pair for raw in chunk if (pair := self._kept(raw, tally)) is not None]
        tally.examples = len(found)
        texts = {"source": [one.source for one, _ in found], "target": [one.second or "" for one, _ in found]}
        arrays = {name: self.coder.field(name, texts[name], tally) for name in FIELDS}
        values = np.array(list(chain.from_iterable(value for _, value in found)), dtype=np.int32)
        sizes = np.array([len(value) for _, value in found], dtype=np.int64)
        return Encoded(arrays | {LABEL: (values, sizes)}, tally)

    def _kept(self, raw: Raw, tally: Tally) -> tuple[LabelledText, list[int]] | None:
        try:
            text = raw.parsed()
            return text, VALUES[self.task](text, self.labels)
        except DataError as error:
            if self.on_bad_line == "fail":
                raise
            tally.bad += 1
            tally.bad_lines = [*tally.bad_lines, error.message][:SHOWN]
            return None


def chunks_of(lines: Iterator[Raw]) -> Iterator[list[Raw]]:
    """Lines, so many at a time."""
    while chunk := list(islice(lines, CHUNK)):
        yield chunk


def label_set(texts: Iterable[LabelledText]) -> tuple[str, ...]:
    """The different labels in their order: as numbers where all of them are, else as text."""
    found = {text.label for text in texts}
    numbers = all(_WHOLE.fullmatch(label) for label in found)
    return tuple(sorted(found, key=int if numbers else str))


def _class(text: LabelledText, labels: Sequence[str]) -> list[int]:
    if text.label not in labels:
        some = ", ".join([*labels[:8], *(["..."] if len(labels) > 8 else [])])
        raise DataError(f"{text.where}: the training data has no label {text.label[:40]!r}", f"it has {some}")
    return [labels.index(text.label)]


def _bits(text: LabelledText, labels: Sequence[str]) -> list[int]:
    try:
        value = float(text.label)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        what = "is not a number" if math.isnan(value) else "is too large a number"
        raise DataError(f"{text.where}: {text.label[:40]!r} {what}", "finetune.task: regress learns numbers")
    return [int(half) for half in np.array([value], dtype="<f4").view("<u2")]


VALUES: dict[str, Callable[[LabelledText, Sequence[str]], list[int]]] = {CLASSIFY: _class, REGRESS: _bits}
"""What a store keeps of a label, by task."""


def number_of(values: NDArray[np.int64]) -> float:
    """The number that `regress` stored as these two."""
    return float(values.astype("<u2").view("<f4")[0])


def _from_json(text: str, where: str, columns: LabelColumns) -> LabelledText:
    value = object_of(text, where, json.dumps({columns.source: "...", columns.label: "..."}))
    source = field_of(value, columns.source, where)
    second = None if columns.second is None else field_of(value, columns.second, where)
    if columns.label not in value:
        has = ", ".join(map(repr, list(value)[:8]))
        raise DataError(
            f"{where}: {columns.label!r} is missing", f"the line has {has}; data.train.target names the label"
        )
    return LabelledText(source, second, _label(value[columns.label], columns.label, where), where)


def _label(value: Any, name: str, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and (label := value.strip()) and "\n" not in label:
        return sound(label, name, where)
    raise DataError(f"{where}: {name!r} must be a label, text on one line or a number")


def _from_row(text: str, where: str, format: str, header: dict[str, int]) -> LabelledText:
    cells = CELLS[format](text, where)
    if max(header.values()) >= len(cells):
        raise DataError(
            f"{where}: the row has {len(cells)} columns, the header says at least {max(header.values()) + 1}"
        )
    second = cells[header["second"]] if "second" in header else None
    return LabelledText(cells[header["source"]], second, _label(cells[header[LABEL]], LABEL, where), where)


def _header(lines: Iterator[Line], format: str, columns: LabelColumns, file: str) -> dict[str, int]:
    """Where text, second text and label stand, from the first row."""
    where, line = next(lines, (f"{file}:1", b""))
    cells = [cell.strip() for cell in CELLS[format](decode(line, where), where)]
    wanted = {"source": columns.source, "second": columns.second, LABEL: columns.label}
    for name in wanted.values():
        if name is not None and cells.count(name) != 1:
            what = "no column is" if name not in cells else "two columns are"
            raise DataError(f"{where}: {what} called {name!r}", f"the columns are {', '.join(cells)}")
    return {role: cells.index(name) for role, name in wanted.items() if name is not None}
