"""Data files as bytes: opened, unzipped, in blocks of whole lines; what goes wrong is a DataError that names where."""

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from unilmctl.errors import DataError

BLOCK = 1 << 18
"""Bytes of lines that are handed on at a time."""


class Block(NamedTuple):
    """Neighbouring lines of one file with their line feeds; `first` is the number of the first of them."""

    label: str
    format: str
    first: int
    lines: list[bytes]


def label_of(file: Path | str) -> str:
    """How messages call a file."""
    return "<stdin>" if str(file) == "-" else str(file)


@contextmanager
def opened(file: Path | str) -> Iterator[BufferedReader]:
    """The bytes of a file or of standard input, unzipped if they are gzip."""
    if str(file) == "-":
        yield _unzipped(sys.stdin.buffer)  # not closed: it is not ours
        return
    path = Path(file)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with stream:
        yield _unzipped(stream)


def unreadable(path: Path, error: OSError) -> DataError:
    """What to say of a data file that does not open."""
    reason = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not a file"}
    return DataError(f"{path}: {reason.get(type(error), error.strerror or str(error))}")


def _unzipped(stream: BinaryIO) -> BufferedReader:
    """`stream` with look-ahead, through gunzip if it begins like gzip."""
    reader = stream if isinstance(stream, BufferedReader) else BufferedReader(BytesIO(stream.read()))
    if reader.peek(2)[:2] == b"\x1f\x8b":
        return BufferedReader(cast(RawIOBase, gzip.GzipFile(fileobj=reader)), 1 << 16)
    return reader


@contextmanager
def read_errors(label: str, line: Callable[[], int]) -> Iterator[None]:
    """What can go wrong while reading bytes, as a DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{label}: the gzip data is broken or cut short after line {line()}") from error
    except OSError as error:
        raise DataError(f"{label}: cannot be read after line {line()}: {error.strerror or error}") from error


def first_line(label: str, line: bytes) -> bytes:
    """The first line of a file without its byte-order mark. DataError when the mark says UTF-16."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{label}: is UTF-16, not UTF-8", "`iconv -f UTF-16 -t UTF-8` mends it")
    return line.removeprefix(b"\xef\xbb\xbf")


def blocks(label: str, stream: BufferedReader, format: str) -> Iterator[Block]:
    """All lines of a stream; a block ends with the line that fills it, however long that is."""
    number = 1
    with read_errors(label, lambda: number - 1):
        while lines := stream.readlines(BLOCK):
            if number == 1:
                lines[0] = first_line(label, lines[0])
            yield Block(label, format, number, lines)
            number += len(lines)
