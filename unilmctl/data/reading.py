"""Text files to records: JSONL, TSV, CSV, plain and parallel text, gzipped or not, files or standard input.

Files are read as bytes and split on line feeds alone, so that line numbers are those of every other tool; one carriage
return is stripped, UTF-8 is strict, a byte-order mark is passed over. What is wrong with a line is a DataError that
names file and line, or a counted `BadLine`, as `on_bad_line` says.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from unilmctl.data.parsing import (
    CELLS,
    Columns,
    Record,
    Text,
    decode,
    from_json,
    from_row,
    mended,
    parse_line,
    plain,
    plain_pairs,
)
from unilmctl.data.streams import Block, blocks, first_line, label_of, opened, read_errors
from unilmctl.errors import DataError

__all__ = ["BadLine", "Columns", "Record", "Text", "Unread", "lines_of", "parse_line", "read"]

FORMATS = ("auto", "jsonl", "tsv", "csv", "text")
POLICIES = ("fail", "skip", "replace")
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".csv": "csv", ".txt": "text"}
CHUNK = 2000
"""Lines of a chunk, unless they come in blocks."""
LONGEST_ROW = 1 << 24  # bytes of one CSV row: a quote that is never closed must not swallow the file

Parser = Callable[[str, str], Record]
"""(text, where) -> record"""

Line = tuple[str, bytes]
"""("file:line", the line without its line feed)"""


class BadLine(NamedTuple):
    """A line that `on_bad_line` lets pass, and what is wrong with it.

    `replacement` is None with the policy skip; with replace it is the mended record, or an empty pair.
    """

    where: str
    message: str
    replacement: Record | None


@dataclass(frozen=True)
class Reader:
    """How the lines of one file become records; it pickles, so that other processes can do it."""

    parse: Parser
    policy: str

    def record(self, where: str, line: bytes) -> Record | BadLine:
        """The line's record, or what the policy makes of its error."""
        try:
            return self.parse(decode(line, where), where)
        except DataError as error:
            if self.policy == "fail":
                raise
            mended = _mended(where, line, self.parse) if self.policy == "replace" else None
            return BadLine(where, error.message, mended)


class Unread(NamedTuple):
    """A line that is not parsed yet; `target` is the line beside it in parallel files."""

    where: str
    line: bytes
    target: Line | None
    reader: Reader

    def record(self) -> Record | BadLine:
        """Parse it; DataError as the policy says."""
        source = self.reader.record(self.where, self.line)
        return source if self.target is None else _with_target(source, self.reader.record(*self.target))


class JsonLines(NamedTuple):
    """A block of JSON lines that are not parsed yet."""

    block: Block
    columns: Columns
    reader: Reader

    def pairs(self) -> tuple[list[str], list[str]] | None:
        """Sources and targets, if all lines are ordinary: the same as their records, sooner."""
        return plain_pairs(self.block.lines, self.columns)

    def unread(self) -> list[Unread]:
        """The lines one by one."""
        label, _, first, lines = self.block
        return [
            Unread(f"{label}:{number}", line.removesuffix(b"\n"), None, self.reader)
            for number, line in enumerate(lines, first)
        ]


Chunk = JsonLines | list[Unread]
"""Lines that are encoded together."""


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
    replace give a BadLine. A file that cannot be read at all is a DataError under every policy.
    """
    columns = Columns(source, target, references)
    for unread in lines_of(files, target_files, format=format, columns=columns, policy=on_bad_line, need=need_target):
        yield unread.record()


def lines_of(
    files: Sequence[Path | str],
    target_files: Sequence[Path | str] | None = None,
    *,
    format: str = "auto",
    columns: Columns = Columns(),  # noqa: B008 - an immutable value
    policy: str = "fail",
    need: bool = True,
) -> Iterator[Unread]:
    """The lines of `files`, located but not parsed; see `read`, which parses them one after another."""
    _check(files, target_files, format, policy)
    for index, file in enumerate(files):
        if target_files is not None:
            yield from _parallel(file, target_files[index], policy)
        else:
            with opened(file) as stream:
                found = detect(file, stream, need_target=need) if format == "auto" else format
                yield from _single(label_of(file), stream, found, columns, policy, need_target=need)


def chunks_of(
    files: Sequence[Path | str],
    target_files: Sequence[Path | str] | None = None,
    *,
    format: str = "auto",
    columns: Columns = Columns(),  # noqa: B008 - an immutable value
    policy: str = "fail",
) -> Iterator[Chunk]:
    """The lines that `lines_of` gives, all of which need a target, many at a time."""
    _check(files, target_files, format, policy)
    for index, file in enumerate(files):
        if target_files is not None:
            yield from _many(_parallel(file, target_files[index], policy))
            continue
        with opened(file) as stream:
            found = detect(file, stream, need_target=True) if format == "auto" else format
            if found == "jsonl":
                reader = Reader(partial(from_json, columns=columns, need_target=True), policy)
                yield from (JsonLines(block, columns, reader) for block in blocks(label_of(file), stream, found))
            else:
                yield from _many(_single(label_of(file), stream, found, columns, policy, need_target=True))


def _check(files: Sequence[Path | str], target_files: Sequence[Path | str] | None, format: str, policy: str) -> None:
    if format not in FORMATS:
        raise DataError(f"no such data format: {format!r}", f"one of {', '.join(FORMATS)}")
    if policy not in POLICIES:
        raise DataError(f"on_bad_line: {policy!r} is not known", f"one of {', '.join(POLICIES)}")
    if target_files is not None and len(target_files) != len(files):
        raise DataError(f"{len(files)} files but {len(target_files)} target_files", "every source file needs its own")


def _many(lines: Iterator[Unread]) -> Iterator[list[Unread]]:
    while chunk := list(islice(lines, CHUNK)):
        yield chunk


def _single(
    label: str, stream: BufferedReader, format: str, columns: Columns, policy: str, *, need_target: bool
) -> Iterator[Unread]:
    """Lines of one file that holds sources and targets alike."""
    lines = lines_in(label, stream)
    if format == "jsonl":
        parse: Parser = partial(from_json, columns=columns, need_target=need_target)
    elif format == "text":
        if need_target:
            raise DataError(f"{label}: plain text has no targets", "name the files that hold them in target_files")
        parse = plain
    else:
        lines = csv_rows(lines) if format == "csv" else lines
        header, lines = _header(lines, format, columns, need_target=need_target)
        parse = partial(from_row, format=format, header=header, need_target=need_target)
    reader = Reader(parse, policy)
    for where, line in lines:
        yield Unread(where, line, None, reader)


def _parallel(sources: Path | str, targets: Path | str, policy: str) -> Iterator[Unread]:
    """Lines of two files that are read side by side."""
    reader = Reader(plain, policy)
    with opened(sources) as left, opened(targets) as right:
        pairs = zip_longest(lines_in(label_of(sources), left), lines_in(label_of(targets), right))
        for number, (source, target) in enumerate(pairs, 1):
            if source is None or target is None:
                short, long = (sources, targets) if source is None else (targets, sources)
                raise DataError(
                    f"{label_of(short)}: ends after line {number - 1}, but {label_of(long)} goes on",
                    "parallel files have as many lines as one another",
                )
            where, line = source
            yield Unread(where, line, target, reader)


def _with_target(source: Record | BadLine, target: Record | BadLine) -> Record | BadLine:
    """One record of two lines side by side; bad if either is."""
    left = source.replacement if isinstance(source, BadLine) else source
    right = target.replacement if isinstance(target, BadLine) else target
    both = None if left is None or right is None else left._replace(target=right.source)
    bad = next((item for item in (source, target) if isinstance(item, BadLine)), None)
    if bad is not None:
        return bad._replace(replacement=both)
    assert both is not None
    return both


def _mended(where: str, line: bytes, parse: Parser) -> Record:
    """The record of a line that was mended; beyond repair an empty pair, so that lines and records stay in step."""
    try:
        return parse(mended(line), where)
    except DataError:
        return Record("", "", [], None, where)


def _header(
    lines: Iterator[Line], format: str, columns: Columns, *, need_target: bool
) -> tuple[dict[str, int] | None, Iterator[Line]]:
    """Where source and target stand, if the first row names the columns; and the rows that are data."""
    first = next(lines, None)
    if first is None:
        return None, lines
    where, line = first
    try:
        cells = [cell.strip() for cell in CELLS[format](decode(line, where), where)]
    except DataError:  # a bad row like any other: its turn comes
        cells = []
    if columns.source not in cells:
        return None, chain([first], lines)
    wanted = {"source": columns.source, "target": columns.target}
    double = next((name for name in wanted.values() if cells.count(name) > 1), None)
    if double is not None:
        raise DataError(f"{where}: two columns are called {double!r}")
    if need_target and columns.target not in cells:
        raise DataError(f"{where}: no column is called {columns.target!r}", f"the columns are {', '.join(cells)}")
    return {role: cells.index(name) for role, name in wanted.items() if name in cells}, lines


def csv_rows(lines: Iterator[Line]) -> Iterator[Line]:
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


def lines_in(label: str, stream: BufferedReader) -> Iterator[Line]:
    """The lines of a stream with their places."""
    number = 0
    with read_errors(label, lambda: number):
        for line in stream:
            number += 1
            if number == 1:
                line = first_line(label, line)  # noqa: PLW2901
            yield f"{label}:{number}", line.removesuffix(b"\n")


def detect(file: Path | str, stream: BufferedReader, *, need_target: bool) -> str:
    """The format of a file: by its suffix, else by how it begins."""
    suffix = Path(str(file).removesuffix(".gz")).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with read_errors(label_of(file), lambda: 0):
        start = stream.peek(1)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return "jsonl"
    return "tsv" if need_target and b"\t" in start.split(b"\n", 1)[0] else "text"
