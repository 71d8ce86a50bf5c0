"""Records from a stream of bytes as they arrive, and lines to where they go.

A pause is data too: whoever reads these records decodes in batches, and must know when nothing more is ready, so that a
line typed into a pipe is answered before the end of input. So the iterators here give None wherever the next read
would have to wait.
"""

import gzip
import io
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from unilmctl.data.parsing import Columns, Record, mended, parse_line
from unilmctl.data.reading import SUFFIXES, BadLine, read
from unilmctl.data.streams import label_of
from unilmctl.errors import DataError
from unilmctl.files import write_errors

CHUNK = 1 << 16

PATIENCE = 0.01
"""Seconds without new bytes that count as a pause."""

PAIR = Columns()
"""The usual names of the fields."""

UNFINISHED = ".unfinished"
"""What the name of an output ends in until all its lines are there."""

Item = Record | BadLine
"""One line of input, as far as it can be used."""


def read_records(
    source: str, *, format: str = "auto", on_bad_line: str = "fail", columns: Columns = PAIR
) -> Iterator[Item | None]:
    """Records of a file or of standard input ("-"), None where the input pauses.

    format: auto (by suffix; else JSON lines if the first byte is an opening brace, and text if not), jsonl, text, tsv,
    csv. An empty line of text or JSON lines is a record with an empty source. on_bad_line: fail raises the line's
    DataError, skip and replace give a BadLine. JSON lines may hold the wishes of their record;
    `columns` names their fields.
    """
    suffix = SUFFIXES.get(Path(source.removesuffix(".gz")).suffix.lower())
    settled = suffix if format == "auto" and suffix in ("jsonl", "tsv", "csv") else format
    if settled in ("tsv", "csv"):
        names = {"source": columns.source, "target": columns.target}
        yield from read([source], format=settled, on_bad_line=on_bad_line, need_target=False, **names)
        return
    label = label_of(source)
    with _chunks(source) as chunks:
        yield from _records(_lines(chunks), label, settled, on_bad_line, columns)


@contextmanager
def open_lines(output: Path | None) -> Iterator[Callable[[list[str]], None]]:
    """A function that writes lines to a file or to standard output, and flushes them.

    The file grows beside its place, as OUTPUT.unfinished, and takes it at the end: what stands there is whole. When the
    work is broken off, the lines so far stay where they are; when they cannot be written, they go. WriteError when a
    file cannot be written; errors of standard output pass through.
    """
    if output is None:
        yield lambda lines: write_lines(sys.stdout.buffer, lines)
        return
    with write_errors(output):
        if output.exists() and not output.is_file():  # a pipe or a device: nothing can take its place
            with output.open("wb") as file:
                yield lambda lines: write_lines(file, lines)
            return
        final = output.resolve()  # a link stays a link
        beside = final.with_name(f"{final.name}{UNFINISHED}")
        try:
            with beside.open("wb") as file:
                yield lambda lines: write_lines(file, lines)
                os.fsync(file.fileno())
            beside.replace(final)
        except BaseException as error:
            if isinstance(error, OSError) or beside.stat().st_size == 0:
                beside.unlink(missing_ok=True)
            raise


def write_lines(file: BinaryIO, lines: list[str]) -> None:
    """Writes lines as UTF-8, each with its line feed, and flushes them."""
    file.write("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
    file.flush()


@contextmanager
def _chunks(source: str) -> Iterator[Iterator[bytes | None]]:
    """The bytes of a file or of standard input in pieces, None where they pause; gzip by its suffix."""
    if source == "-":
        yield _arriving(sys.stdin.buffer)
        return
    with _opened(Path(source)) as stream:
        yield _stored(stream, source) if source.endswith(".gz") else _arriving(stream)


def _opened(path: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _arriving(stream: BinaryIO) -> Iterator[bytes | None]:
    """Pieces of a stream that nobody has read from, as soon as they are there."""
    try:
        number = stream.fileno()
    except io.UnsupportedOperation:  # no file behind it: nothing ever has to be waited for
        yield from _stored(stream, "<stdin>")
        return
    while True:
        if not select.select([number], [], [], PATIENCE)[0]:
            yield None
        chunk = os.read(number, CHUNK)
        if not chunk:
            return
        yield chunk


def _stored(stream: BinaryIO, label: str) -> Iterator[bytes]:
    """Pieces of a stream that never pauses."""
    try:
        while chunk := stream.read(CHUNK):
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{label}: the gzip data is broken or cut short") from error


def _lines(chunks: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Lines without their line feed; None passes through."""
    rest: list[bytes] = []
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        first, *others = chunk.split(b"\n")
        rest.append(first)
        for following in others:
            yield b"".join(rest)
            rest = [following]
    if last := b"".join(rest):
        yield last


def _records(
    lines: Iterator[bytes | None], label: str, format: str, policy: str, columns: Columns
) -> Iterator[Item | None]:
    number = 0
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if format == "auto" and (start := content.lstrip()[:1]):
            format = "jsonl" if start == b"{" else "text"
        yield _parsed(content, f"{label}:{number}", format, policy, columns)


def _parsed(line: bytes, where: str, format: str, policy: str, columns: Columns) -> Item:
    if not line.strip():
        return Record("", None, [], None, where)
    try:
        return _read(line, where, format, columns)
    except DataError as error:
        if policy == "fail":
            raise
        return BadLine(where, error.message, _mended(line, where, format, columns) if policy == "replace" else None)


def _read(line: bytes, where: str, format: str, columns: Columns) -> Record:
    return parse_line(line, where, format=format, source=columns.source, target=columns.target, wishes=True)


def _mended(line: bytes, where: str, format: str, columns: Columns) -> Record | None:
    """The record of a line that was mended; None where that does not help."""
    try:
        return _read(mended(line).encode(), where, format, columns)
    except DataError:
        return None  # beyond repair: the caller counts the line as bad
