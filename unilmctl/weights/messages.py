"""Protocol buffers and the numbers in them, as far as foreign files need it: no schema, and no trust in any length."""

from collections.abc import Iterator
from typing import NamedTuple


class BrokenFileError(ValueError):
    """Bytes that are not what they should be; whoever knows the file says which it is."""


class Field(NamedTuple):
    """A field of a message: its number, its value (0 where it has a content), its content, and all its bytes."""

    number: int
    value: int
    content: bytes
    whole: bytes


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, in their order. BrokenFileError when it ends too early, or holds what is none."""
    start = 0
    while start < len(message):
        tag, at = varint(message, start)
        value, content = 0, b""
        if tag & 7 == 0:
            value, at = varint(message, at)
        elif tag & 7 == 2:
            length, at = varint(message, at)
            content = message[at : at + length]
            at += length
        elif tag & 7 in (1, 5):
            width = 8 if tag & 7 == 1 else 4
            value = int.from_bytes(message[at : at + width], "little")
            at += width
        else:
            raise BrokenFileError(f"a field of unknown type {tag & 7}")
        if at > len(message):
            raise BrokenFileError("a field is longer than its message")
        yield Field(tag >> 3, value, content, message[start:at])
        start = at


def varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven of them in a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise BrokenFileError("it ends in the middle of a number")
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (2**64 - 1), at
    raise BrokenFileError("a number of more than 64 bits")
