"""Text files to records: JSONL, TSV, CSV, plain and parallel text, gzipped or not, files or standard input.

Files are read as bytes and split on line feeds alone, so that line numbers are those of every other tool; one carriage
return is stripped, UTF-8 is strict, a byte-order mark is passed over. What is wrong with a line is a DataError that
names file and line, or a counted `BadLine`, as `on_bad_line` says.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, BytesIO, RawIOBase
from itertools import chain, zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from unilmctl.data.parsing import CELLS, Columns, Record, Text, decode, from_cells, from_json, parse_line
from unilmctl.errors import DataError

__all__ = ["BadLine", "Columns", "Record", "Text", "parse_line", "read"]

FORMATS = ("auto", "jsonl", "tsv", "csv", "text")
POLICIES = ("fail", "skip", "replace")
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".csv": "csv", ".txt": "text"}
LONGEST_ROW = 1 << 24  # bytes of one CSV row: a quote that is never closed must not swallow the file

Parser = Callable[[str, str], Record]
"""(text, where) -> record"""

Line = tuple[str, bytes]
"""("file:line", the line without its line feed)"""


class BadLine(NamedTuple):
    """A line that `on_bad_line` lets pass: what is wrong with it, and the mended record if it could be mended."""

    where: str
    message: str
    replacement: Record | None


def read(
    files: Sequence[Path | str],
    *,
    format: str = "auto",
    source: str = "src",
    target: str = "tgt",
    references: str = "refs",
    target_files: Sequence[Path | str] | None = None,
    on_bad_line: str = "fail",
    need_target: bool = True,
) -> Iterator[Record | BadLine]:
    """Every record of `files` in order, in constant memory; "-" is standard input.

    format: auto (by suffix, then by the first byte), jsonl, tsv, csv, or text: sources in `files`, targets line by line
    in `target_files`. TSV and CSV have a header row if one of its cells is called `source`, and two columns otherwise.
    need_target: a record without target and references is an error. on_bad_line: fail raises the DataError; skip and
    replace give a BadLine, with `replace` mended where that is possible (broken UTF-8 and half surrogate pairs become
    U+FFFD). A file that cannot be read at all is a DataError under every policy.
    """
    if format not in FORMATS:
        raise DataError(f"no such data format: {format!r}", f"one of {', '.join(FORMATS)}")
    if on_bad_line not in POLICIES:
        raise DataError(f"on_bad_line: {on_bad_line!r} is not known", f"one of {', '.join(POLICIES)}")
    if target_files is not None and len(target_files) != len(files):
        raise DataError(f"{len(files)} files but {len(target_files)} target_files", "every source file needs its own")
    columns = Columns(source, target, references)
    for index, file in enumerate(files):
        if target_files is not None:
            yield from _parallel(file, target_files[index], on_bad_line)
        else:
            yield from _single(file, format, columns, on_bad_line, need_target=need_target)


def _single(
    file: Path | str, format: str, columns: Columns, policy: str, *, need_target: bool
) -> Iterator[Record | BadLine]:
    """Records of one file that holds sources and targets alike."""
    label = label_of(file)
    with _open(file) as stream:
        found = _detect(file, stream, need_target=need_target) if format == "auto" else format
        lines = _lines(label, stream)
        if found == "jsonl":
            parse: Parser = partial(from_json, columns=columns, need_target=need_target)
        elif found == "text":
            if need_target:
                raise DataError(f"{label}: plain text has no targets", "name the files that hold them in target_files")
            parse = _plain
        else:
            lines = _csv_rows(lines) if found == "csv" else lines
            header, lines = _header(lines, found, columns, need_target=need_target)
            parse = partial(_cells, format=found, header=header, need_target=need_target)
        for where, line in lines:
            yield _guarded(where, line, policy, parse)


def _parallel(sources: Path | str, targets: Path | str, policy: str) -> Iterator[Record | BadLine]:
    """Records of two files that are read side by side."""
    with _open(sources) as left, _open(targets) as right:
        pairs = zip_longest(_lines(label_of(sources), left), _lines(label_of(targets), right))
        for number, (source, target) in enumerate(pairs, 1):
            if source is None or target is None:
                short, long = (sources, targets) if source is None else (targets, sources)
                raise DataError(
                    f"{label_of(short)}: ends after line {number - 1}, but {label_of(long)} goes on",
                    "parallel files have as many lines as one another",
                )
            sides = [_guarded(where, line, policy, _plain) for where, line in (source, target)]
            yield _with_target(*sides)


def _with_target(source: Record | BadLine, target: Record | BadLine) -> Record | BadLine:
    """One record of the two lines; bad if either is, mended if both could be."""
    left = source.replacement if isinstance(source, BadLine) else source
    right = target.replacement if isinstance(target, BadLine) else target
    both = left._replace(target=right.source) if left is not None and right is not None else None
    bad = next((item for item in (source, target) if isinstance(item, BadLine)), None)
    if bad is not None:
        return bad._replace(replacement=both)
    assert both is not None
    return both


def _guarded(where: str, line: bytes, policy: str, parse: Parser) -> Record | BadLine:
    """The line's record, or what the policy makes of its error."""
    try:
        return parse(decode(line, where), where)
    except DataError as error:
        if policy == "fail":
            raise
        return BadLine(where, error.message, _mended(where, line, parse) if policy == "replace" else None)


def _mended(where: str, line: bytes, parse: Parser) -> Record | None:
    """The record of a line whose undecodable bytes, NULs and half surrogate pairs have become U+FFFD."""
    text = line.replace(b"\0", b"\xef\xbf\xbd").decode("utf-8", "replace").removesuffix("\r")
    try:
        if text.startswith("{"):
            whole = json.dumps(json.loads(text), ensure_ascii=False).replace("\\u0000", "\ufffd")
            text = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return parse(text, where)
    except (DataError, ValueError, RecursionError):
        return None  # beyond repair: the caller counts the line as bad


def _plain(text: str, where: str) -> Record:
    return Record(text, None, [], None, where)


def _cells(text: str, where: str, *, format: str, header: dict[str, int] | None, need_target: bool) -> Record:
    return from_cells(CELLS[format](text, where), where, header, need_target=need_target)


def _header(
    lines: Iterator[Line], format: str, columns: Columns, *, need_target: bool
) -> tuple[dict[str, int] | None, Iterator[Line]]:
    """Where source and target stand, if the first row names the columns; and the rows that are data."""
    first = next(lines, None)
    if first is None:
        return None, lines
    where, line = first
    cells = [cell.strip() for cell in CELLS[format](line.decode("utf-8", "replace").removesuffix("\r"), where)]
    if columns.source not in cells:
        return None, chain([first], lines)
    wanted = {"source": columns.source, "target": columns.target}
    double = next((name for name in wanted.values() if cells.count(name) > 1), None)
    if double is not None:
        raise DataError(f"{where}: two columns are called {double!r}")
    if need_target and columns.target not in cells:
        raise DataError(f"{where}: no column is called {columns.target!r}", f"the columns are {', '.join(cells)}")
    return {role: cells.index(name) for role, name in wanted.items() if name in cells}, lines


def _csv_rows(lines: Iterator[Line]) -> Iterator[Line]:
    """Rows of a CSV file: a line with an open quote goes on in the next one."""
    for where, line in lines:
        parts, quotes, size = [line], line.count(b'"'), len(line)
        while quotes % 2:
            _, more = next(lines, (None, None))
            size += len(more or b"")
            if more is None or size > LONGEST_ROW:
                raise DataError(f"{where}: a quoted cell begins here and never ends")
            parts.append(more)
            quotes += more.count(b'"')
        yield where, b"\n".join(parts)


def label_of(file: Path | str) -> str:
    """How messages call a file."""
    return "<stdin>" if str(file) == "-" else str(file)


@contextmanager
def _open(file: Path | str) -> Iterator[BufferedReader]:
    """The bytes of a file or of standard input, unzipped if they are gzip."""
    if str(file) == "-":
        yield _unzipped(sys.stdin.buffer)  # not closed: it is not ours
        return
    path = Path(file)
    try:
        stream = path.open("rb")
    except OSError as error:
        reason = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not a file"}
        raise DataError(f"{path}: {reason.get(type(error), error.strerror or str(error))}") from error
    with stream:
        yield _unzipped(stream)


def _unzipped(stream: BinaryIO) -> BufferedReader:
    """`stream` with look-ahead, through gunzip if it begins like gzip."""
    reader = stream if isinstance(stream, BufferedReader) else BufferedReader(BytesIO(stream.read()))
    if reader.peek(2)[:2] == b"\x1f\x8b":
        return BufferedReader(cast(RawIOBase, gzip.GzipFile(fileobj=reader)), 1 << 16)
    return reader


def _lines(label: str, stream: BufferedReader) -> Iterator[Line]:
    """The lines of a stream with their places."""
    number = 0
    with _read_errors(label, lambda: number):
        for line in stream:
            number += 1
            if number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{label}: is UTF-16, not UTF-8", "`iconv -f UTF-16 -t UTF-8` mends it")
                line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901
            yield f"{label}:{number}", line.removesuffix(b"\n")


@contextmanager
def _read_errors(label: str, line: Callable[[], int]) -> Iterator[None]:
    """What can go wrong while reading bytes, as a DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{label}: the gzip data is broken or cut short after line {line()}") from error
    except OSError as error:
        raise DataError(f"{label}: cannot be read after line {line()}: {error.strerror or error}") from error


def _detect(file: Path | str, stream: BufferedReader, *, need_target: bool) -> str:
    """The format of a file: by its suffix, else by how it begins."""
    suffix = Path(str(file).removesuffix(".gz")).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with _read_errors(label_of(file), lambda: 0):
        start = stream.peek(1)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return "jsonl"
    return "tsv" if need_target and b"\t" in start.split(b"\n", 1)[0] else "text"
