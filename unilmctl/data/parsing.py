"""One line of a data file to one record; every refusal is a DataError that names where."""

import csv
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from secrets import randbits
from typing import Any, NamedTuple

from unilmctl.errors import DataError

Text = str | list[str]
"""Raw text, or tokens that are already split."""

_SENTENCE_END = re.compile(r"(?<=[.!?…])[ \t]+(?=\S)|(?<=[。！？])(?![。！？”’」』）])")
"""Between the sentences of a text without lines: a blank after an end mark, or nothing after a Chinese one."""


class Record(NamedTuple):
    """One example as text. `where` is "file:line"; `target` is None where the data has none.

    `prefix` and `phrases` are wishes for what is written to this source: how it begins (None: nothing was said), and
    what it must contain. They are read only where they are asked for.
    """

    source: Text
    target: Text | None
    references: list[Text]
    id: str | int | None
    where: str
    prefix: Text | None = None
    phrases: Sequence[str] = ()


class Columns(NamedTuple):
    """The names of the fields: keys of a JSON object, or of a header row."""

    source: str = "src"
    target: str = "tgt"
    references: str = "refs"


def parse_line(
    line: bytes,
    where: str,
    *,
    format: str,
    source: str = "src",
    target: str = "tgt",
    references: str = "refs",
    need_target: bool = False,
    wishes: bool = False,
) -> Record:
    """The record of one line without its line feed.

    format: jsonl; text (the whole line is the source); tsv or csv (source, then perhaps target; no header row).
    need_target: whether a record must have a target, or references (the first will do).
    wishes: whether "prefix" and "phrases" of a JSON object mean something. DataError names `where`.
    """
    text = decode(line, where)
    if format == "jsonl":
        return from_json(text, where, Columns(source, target, references), need_target=need_target, wishes=wishes)
    if format == "text":
        return plain(text, where)
    return from_row(text, where, format=format, header=None, need_target=need_target)


def decode(line: bytes, where: str, errors: str = "strict") -> str:
    """A line's text: UTF-8, one carriage return at the end stripped, no NUL."""
    line = line.removesuffix(b"\r")
    if b"\0" in line:
        raise DataError(
            f"{where}: holds a NUL byte", "the file is not UTF-8 text: `iconv -f UTF-16 -t UTF-8` may mend it"
        )
    try:
        return line.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        raise DataError(
            f"{where}: not UTF-8 ({wrong})", "convert the file with `iconv -t UTF-8`, or use on_bad_line: replace"
        ) from error


def mended(line: bytes) -> str:
    """A line's text in which bad bytes, NULs and half surrogate pairs have become U+FFFD, in a JSON object too."""
    text = line.replace(b"\0", b"\xef\xbf\xbd").decode("utf-8", "replace").removesuffix("\r")
    if not text.lstrip().startswith("{"):
        return text
    try:
        whole = json.dumps(_JSON.decode(text), ensure_ascii=False).replace("\\u0000", "\ufffd")
    except (ValueError, RecursionError):
        return text  # no JSON: it may be meant as text
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def from_json(text: str, where: str, columns: Columns, *, need_target: bool, wishes: bool = False) -> Record:
    """The record of one JSON object, with its wishes if they are asked for."""
    value = object_of(text, where, '{"src": "...", "tgt": "..."}')
    source = _field(value, columns.source, where)
    if source is None:
        raise _missing(columns.source, where, list(value))
    target = _field(value, columns.target, where)
    listed = _references(value, columns.references, where)
    if need_target and target is None and not listed:
        raise _missing(columns.target, where, list(value))
    record = Record(source, target, listed, _id(value, where), where)
    return record._replace(prefix=_field(value, "prefix", where), phrases=_phrases(value, where)) if wishes else record


def plain_pairs(lines: Sequence[bytes], columns: Columns) -> tuple[list[str], list[str]] | None:
    """Sources and targets of JSON lines that are all ordinary; None when one of them needs a closer look (`from_json`).

    All lines are parsed as one list. A fence that no file can know stands between them, so that a line which begins
    what another ends does not pass.
    """
    joined = b",%d," % _FENCE
    try:
        values = _JSON.decode(f"[{joined.join(lines).decode()}]")
    except (ValueError, RecursionError):
        return None
    records = values[::2]
    whole = len(values) == 2 * len(lines) - 1 and values[1::2].count(_FENCE) == len(lines) - 1
    if not whole or not all(type(record) is dict for record in records):
        return None
    sources, targets = ([record.get(name) for record in records] for name in (columns.source, columns.target))
    ordinary = (
        set(map(type, chain(sources, targets))) == {str}
        and all(record.get(columns.references) is None for record in records)
        and {type(record.get("id")) for record in records} <= {type(None), str, int}
    )
    return (sources, targets) if ordinary and _all_sound([*sources, *targets]) else None


def _all_sound(texts: list[str]) -> bool:
    whole = "".join(texts)
    try:
        whole.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in whole


def sentences_from_json(text: str, where: str, *, field: str, given: bool) -> list[Text]:
    """The sentences of one JSON object's document, and of its text as `sentences_of` has them.

    A document is text, a list of sentences, or a list of lists of tokens. given: its lists are words or phrases, a list
    of texts is one sentence of them, and plain text is not enough.
    """
    whole = object_of(text, where, f'{{"{field}": "..."}}')
    value = whole.get(field)
    if value is None:
        raise _missing(field, where, list(whole))
    if isinstance(value, str) and not given:
        return list(sentences_of(sound(value, field, where)))
    if given and isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = [value]
    if not isinstance(value, list) or given and not all(isinstance(one, list) for one in value):
        expected = "a list of sentences, each a list of words" if given else "text or a list of sentences"
        raise DataError(f"{where}: {field!r} must be {expected}, not {_name(value)}")
    return [_text(one, field, where) for one in value]


def sentences_of(text: str) -> list[str]:
    """The lines of a text that are not blank; of a text of one line its sentences, as their end marks tell."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    return [part for part in _SENTENCE_END.split(lines[0]) if part] if len(lines) == 1 else lines


def plain(text: str, where: str) -> Record:
    """The record of a line of plain text: all of it is the source."""
    return Record(text, None, [], None, where)


def from_row(text: str, where: str, *, format: str, header: dict[str, int] | None, need_target: bool) -> Record:
    """The record of one TSV or CSV row. `header` maps source and target to their columns; None: the first two."""
    cells = CELLS[format](text, where)
    if header is None:
        if not 1 + need_target <= len(cells) <= 2:
            expected = "2 columns (source, target)" if need_target else "1 or 2 columns (source, target)"
            raise DataError(
                f"{where}: {expected} were expected, the row has {len(cells)}",
                "in a file with other columns, a header row says which are source and target",
            )
        header = {"source": 0, "target": 1} if len(cells) == 2 else {"source": 0}
    last = max(header.values())
    if last >= len(cells):
        raise DataError(f"{where}: the row has {len(cells)} columns, the header says at least {last + 1}")
    target = cells[header["target"]] if "target" in header else None
    return Record(cells[header["source"]], target, [], None, where)


def split_tsv(text: str, where: str) -> list[str]:
    """Cells of a TSV row: no quoting, a tab always separates."""
    return text.split("\t")


def split_csv(text: str, where: str) -> list[str]:
    """Cells of a CSV row (RFC 4180: quoted cells may hold commas, doubled quotes and line feeds)."""
    csv.field_size_limit(sys.maxsize)  # of the whole process: 128 kB, unless somebody says otherwise
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise DataError(f"{where}: not valid CSV: {error}") from error
    return next((row for row in rows if row), [""])


CELLS: dict[str, Callable[[str, str], list[str]]] = {"tsv": split_tsv, "csv": split_csv}


def object_of(text: str, where: str, example: str) -> dict[str, Any]:
    """The JSON object of a line."""
    if not text.strip():
        raise DataError(f"{where}: the line is empty", "use on_bad_line: skip to pass over such lines")
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{where}: not valid JSON: {reason[:100]}{column}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object was expected, not {_name(value)}", example)
    return value


def field_of(value: dict[str, Any], name: str, where: str) -> Text:
    """Text or token list under `name`; DataError when it is missing."""
    found = _field(value, name, where)
    if found is None:
        raise _missing(name, where, list(value))
    return found


def _field(value: dict[str, Any], name: str, where: str) -> Text | None:
    """Text or token list under `name`; None when absent or null."""
    found = value.get(name)
    return None if found is None else _text(found, name, where)


def _references(value: dict[str, Any], name: str, where: str) -> list[Text]:
    """All references under `name`; null ones are left out."""
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise DataError(f"{where}: {name!r} must be a list of texts, not {_name(found)}")
    return [_text(one, name, where) for one in found if one is not None]


def _phrases(value: dict[str, Any], where: str) -> Sequence[str]:
    found = value.get("phrases")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(phrase, str) for phrase in found):
        raise DataError(f"{where}: 'phrases' must be a list of texts", '{"src": "...", "phrases": ["..."]}')
    return [sound(phrase, "phrases", where) for phrase in found]


def _text(value: object, name: str, where: str) -> Text:
    if isinstance(value, str):
        return sound(value, name, where)
    if isinstance(value, list) and all(isinstance(token, str) for token in value):
        for token in value:
            sound(token, name, where)
        return value
    raise DataError(f"{where}: {name!r} must be text or a list of tokens, not {_name(value)}")


def sound(text: str, name: str, where: str) -> str:
    """`text`, unless it holds what no tokenizer takes."""
    if "\0" in text:
        raise DataError(f"{where}: {name!r} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X}"
            raise DataError(
                f"{where}: {name!r} holds half of a surrogate pair ({code})", "use on_bad_line: replace to mend it"
            ) from error
    return text


def _id(value: dict[str, Any], where: str) -> str | int | None:
    found = value.get("id")
    if found is None or (isinstance(found, str | int) and not isinstance(found, bool)):
        return found
    raise DataError(f"{where}: 'id' must be text or a whole number, not {_name(found)}")


def _missing(name: str, where: str, present: list[str]) -> DataError:
    has = f"the line has {', '.join(repr(key) for key in present[:8])}" if present else "the object is empty"
    return DataError(f"{where}: {name!r} is missing", f"{has}; the recipe's data section names the fields")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_FENCE = randbits(60)


def _name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
