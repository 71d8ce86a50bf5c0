"""Records from a stream of bytes, as they arrive.

A pause is data too: whoever reads these lines decodes in batches, and must know when nothing more is ready, so that a
line typed into a pipe is answered before the end of input. So the iterators here give None wherever the next read
would have to wait.
"""

import os
import select
from collections.abc import Iterator
from typing import BinaryIO

from unilmctl.data.parsing import Record, parse_line
from unilmctl.data.reading import BadLine
from unilmctl.errors import DataError

CHUNK = 1 << 16


def live_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their line feed; None whenever reading on would wait. The stream must not have been read from."""
    number = stream.fileno()
    rest: list[bytes] = []
    while True:
        if not select.select([number], [], [], 0)[0]:
            yield None
        chunk = os.read(number, CHUNK)
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        rest.append(first)
        for following in others:
            yield b"".join(rest)
            rest = [following]
    if last := b"".join(rest):
        yield last


def live_records(
    stream: BinaryIO, label: str, *, format: str = "auto", on_bad_line: str = "fail"
) -> Iterator[Record | BadLine | None]:
    """One record or bad line for every line, None where the stream pauses.

    format: auto (JSON lines if the first byte is an opening brace, else text), jsonl, text, tsv, csv. An empty line is
    a record with an empty source. on_bad_line: fail raises the line's DataError, skip and replace give a BadLine.
    """
    number = 0
    for line in live_lines(stream):
        if line is None:
            yield None
            continue
        number += 1
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if format == "auto":
            start = content.strip()[:1]
            format = "auto" if not start else "jsonl" if start == b"{" else "text"
        yield _parsed(content, f"{label}:{number}", "text" if format == "auto" else format, on_bad_line)


def _parsed(line: bytes, where: str, format: str, policy: str) -> Record | BadLine:
    if not line.strip():
        return Record("", None, [], None, where)
    try:
        return parse_line(line, where, format=format)
    except DataError as error:
        if policy == "fail":
            raise
        return BadLine(where, error.message, _mended(line, where, format) if policy == "replace" else None)


def _mended(line: bytes, where: str, format: str) -> Record | None:
    """The record of a line whose undecodable bytes and NULs have become U+FFFD; None where that does not help."""
    text = line.replace(b"\0", b"\xef\xbf\xbd").decode("utf-8", "replace")
    try:
        return parse_line(text.encode(), where, format=format)
    except DataError:
        return None  # beyond repair: the caller counts the line as bad
