"""Texts with labels: lines of data files to texts and what is to be said of them, bad ones counted (no torch).

A line is a JSON object, or a row under a header that names the columns: a text, perhaps a second one, and a label. What
a label is depends on the task:

| task | label |
|---|---|
| `classify` | one of a set of names |
| `regress` | a number |
| `tag` | a tag for every word of the text: a list, or names parted by blanks |
| `span` | where the second text answers the first: a list of texts, or of SQuAD's answers, none for no answer |
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.parsing import CELLS, Text, decode, field_of, object_of, sound
from unilmctl.data.reading import Line, csv_rows, detect, lines_in
from unilmctl.data.streams import label_of, opened
from unilmctl.errors import DataError

CLASSIFY, REGRESS, TAG, SPAN = "classify", "regress", "tag", "span"
"""Tasks that end in a label."""

WRITES = ("generate", "similar")
"""Tasks that teach to write: their examples are pairs of text."""


_WHOLE = re.compile(r"-?[0-9]{1,100}")


class LabelColumns(NamedTuple):
    """The names of the fields: keys of a JSON object, or of a header row; `second` is None without a second text."""

    source: str
    second: str | None
    label: str


class Answer(NamedTuple):
    """A part of the second text, and the character at which it begins."""

    text: str
    start: int


class LabelledText(NamedTuple):
    """One example as text, with its `label`, or the `tags` of its words, or its `answers`. `where` is "file:line"."""

    source: Text
    second: Text | None
    where: str
    label: str = ""
    tags: Sequence[str] = ()
    answers: Sequence[Answer] = ()

    def truths(self, task: str) -> list[str]:
        """What may be said of it, as `evaluate` reads it."""
        if task == SPAN:
            return [answer.text for answer in self.answers] or [""]
        return [" ".join(self.tags) if task == TAG else self.label]


class Raw(NamedTuple):
    """A line that is not parsed yet."""

    where: str
    line: bytes
    parse: Callable[[str, str], LabelledText]

    def parsed(self) -> LabelledText:
        """DataError names where."""
        return self.parse(decode(self.line, self.where), self.where)


def labelled_lines(files: Sequence[Path], *, format: str, columns: LabelColumns, task: str) -> Iterator[Raw]:
    """The lines of `files`, located but not parsed. format: auto, jsonl, tsv or csv; rows need a header."""
    for file in files:
        with opened(file) as stream:
            lines = lines_in(label_of(file), stream)
            found = detect(file, stream, need_target=True) if format == "auto" else format
            if found == "text":
                raise DataError(
                    f"{label_of(file)}: plain text has no labels", 'JSON lines look like {"text": "...", ...}'
                )
            parse: Callable[[str, str], LabelledText] = partial(_from_json, columns=columns, task=task)
            if found != "jsonl":
                lines = csv_rows(lines) if found == "csv" else lines
                header = _header(lines, found, columns, label_of(file))
                parse = partial(_from_row, format=found, header=header, task=task)
            for where, line in lines:
                yield Raw(where, line, parse)


def parsed_lines(
    lines: Iterable[Raw], *, on_bad_line: str, check: Callable[[LabelledText], object] | None = None
) -> Iterator[LabelledText]:
    """The examples of lines; with skip and replace those that are bad, or that `check` refuses, are passed over."""
    for raw in lines:
        try:
            text = raw.parsed()
            if check is not None:
                check(text)
        except DataError:
            if on_bad_line == "fail":
                raise
            continue
        yield text


def label_set(texts: Iterable[LabelledText], task: str) -> tuple[str, ...]:
    """The different labels, or tags, in their order: as numbers where all of them are, else as text.

    Of answers to choose from there is at most "", where some question has none.
    """
    if task == SPAN:
        return ("",) if any(not text.answers for text in texts) else ()
    found = {name for text in texts for name in (text.tags if task == TAG else (text.label,))}
    numbers = all(_WHOLE.fullmatch(label) for label in found)
    return tuple(sorted(found, key=int if numbers else str))


def words_of(text: Text) -> list[str]:
    """The words that are tagged: those that are given, or what blanks part."""
    return text.split() if isinstance(text, str) else text


def plain_of(text: Text) -> str:
    """A text as it is; words with blanks between them."""
    return text if isinstance(text, str) else " ".join(text)


def _from_json(text: str, where: str, columns: LabelColumns, task: str) -> LabelledText:
    value = object_of(text, where, json.dumps({columns.source: "...", columns.label: "..."}))
    source = field_of(value, columns.source, where)
    second = None if columns.second is None else field_of(value, columns.second, where)
    if columns.label not in value:
        has = ", ".join(map(repr, list(value)[:8]))
        raise DataError(
            f"{where}: {columns.label!r} is missing", f"the line has {has}; data.train.target names the label"
        )
    return READ[task](LabelledText(source, second, where), value[columns.label], columns.label)


def _labelled(text: LabelledText, value: Any, name: str) -> LabelledText:
    if isinstance(value, bool):
        return text._replace(label=str(value).lower())
    if isinstance(value, int | float):
        return text._replace(label=repr(value))
    if isinstance(value, str) and (label := value.strip()) and "\n" not in label:
        return text._replace(label=sound(label, name, text.where))
    raise DataError(f"{text.where}: {name!r} must be a label, text on one line or a number")


def _tagged(text: LabelledText, value: Any, name: str) -> LabelledText:
    tags = value.split() if isinstance(value, str) else value
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag.split() == [tag] for tag in tags):
        raise DataError(f"{text.where}: {name!r} must be a list of tags", '{"text": ["A", "word"], "tags": ["O", "O"]}')
    for tag in tags:
        sound(tag, name, text.where)
    words = words_of(text.source)
    if len(tags) != len(words):
        raise DataError(f"{text.where}: {len(tags)} tags for {len(words)} words", "every word has one tag")
    return text._replace(tags=tuple(tags))


def _answered(text: LabelledText, value: Any, name: str) -> LabelledText:
    """Answers as {"text": ..., "start": ...}, as texts, or as SQuAD's {"text": [...], "answer_start": [...]}."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        starts = value.get("answer_start", [])
        value = [{"text": one, "start": start} for one, start in zip(value["text"], starts, strict=False)]
    context = plain_of(text.second or "")
    answers = []
    for one in value if isinstance(value, list) else [value] if value else []:
        found = one if isinstance(one, dict) else {"text": one}
        answer, start = found.get("text"), found.get("start", found.get("answer_start"))
        if not isinstance(answer, str) or isinstance(start, bool) or not isinstance(start, int | None):
            example = '{"answers": [{"text": "...", "start": 0}]}'
            raise DataError(f"{text.where}: {name!r} must be a list of answers", example)
        start = context.find(answer) if start is None else start
        if not answer or start < 0 or context[start : start + len(answer)] != answer:
            place = f"at character {start} of" if start >= 0 else "in"
            raise DataError(f"{text.where}: the answer {answer[:40]!r} is not {place} the text")
        answers.append(Answer(answer, start))
    return text._replace(answers=tuple(answers))


READ: dict[str, Callable[[LabelledText, Any, str], LabelledText]] = {
    CLASSIFY: _labelled,
    REGRESS: _labelled,
    TAG: _tagged,
    SPAN: _answered,
}
"""What the field of the label means, by task."""


def _from_row(text: str, where: str, format: str, header: dict[str, int], task: str) -> LabelledText:
    cells = CELLS[format](text, where)
    if max(header.values()) >= len(cells):
        raise DataError(
            f"{where}: the row has {len(cells)} columns, the header says at least {max(header.values()) + 1}"
        )
    second = cells[header["second"]] if "second" in header else None
    return READ[task](LabelledText(cells[header["source"]], second, where), cells[header["label"]], "label")


def _header(lines: Iterator[Line], format: str, columns: LabelColumns, file: str) -> dict[str, int]:
    """Where text, second text and label stand, from the first row."""
    where, line = next(lines, (f"{file}:1", b""))
    cells = [cell.strip() for cell in CELLS[format](decode(line, where), where)]
    wanted = {"source": columns.source, "second": columns.second, "label": columns.label}
    for name in wanted.values():
        if name is not None and cells.count(name) != 1:
            what = "no column is" if name not in cells else "two columns are"
            raise DataError(f"{where}: {what} called {name!r}", f"the columns are {', '.join(cells)}")
    return {role: cells.index(name) for role, name in wanted.items() if name is not None}
