"""Sorted tables of keys and values in a file, as LevelDB defined them and TensorFlow writes them.

Blocks of entries, each followed by a byte that says whether it is compressed and by a checksum; one more block that
says where the others are; and a footer of 48 bytes that says where that one is. A key is stored as what it does not
share with the key before it. (LevelDB's doc/table_format.md; Snappy's format_description.txt.)
"""

from collections.abc import Iterator

from unilmctl.weights.checksums import crc32c, unmasked
from unilmctl.weights.messages import BrokenFileError, varint

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
LARGEST_BLOCK = 4 * 2**20
LARGEST_KEYS = 16 * 2**20
"""Bytes of all keys together: they share what they begin with, so that four bytes could make one as long as a block."""


def entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values in the order of the keys. BrokenFileError for a table that is not sound."""
    footer = table[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise BrokenFileError("it does not end as a table does")
    at = 0
    numbers = []
    for _ in range(4):  # offset and size of the block of descriptions, and of the block that says where blocks are
        number, at = varint(footer[:-8], at)
        numbers.append(number)
    last: bytes | None = None
    read = held = 0
    for _, handle in _in_block(_block(table, numbers[2], numbers[3])):
        offset, at = varint(handle, 0)
        size, _ = varint(handle, at)
        if offset < read:
            raise BrokenFileError("its blocks lie upon each other")
        for key, value in _in_block(_block(table, offset, size)):
            if last is not None and key <= last:
                raise BrokenFileError("its keys are not in order")
            held += len(key)
            if held > LARGEST_KEYS:
                raise BrokenFileError("its keys are too long")
            yield key, value
            last = key
        read = offset + size


def _block(table: bytes, offset: int, size: int) -> bytes:
    """The content of one block, whose checksum is right."""
    end = offset + size
    if size > LARGEST_BLOCK or end + 5 > len(table) - FOOTER:
        raise BrokenFileError("a block lies outside of it")
    if unmasked(int.from_bytes(table[end + 1 : end + 5], "little")) != crc32c(table[offset : end + 1]):
        raise BrokenFileError("the checksum of a block is wrong")
    if table[end] not in (0, 1):
        raise BrokenFileError(f"a block is compressed in an unknown way ({table[end]})")
    return table[offset:end] if table[end] == 0 else uncompressed(table[offset:end])


def _in_block(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; the places at the end where keys share nothing are for searching only."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise BrokenFileError("a block is too short")
    content, key, at = block[:end], b"", 0
    while at < end:
        shared, at = varint(content, at)
        own, at = varint(content, at)
        length, at = varint(content, at)
        if shared > len(key) or at + own + length > end:
            raise BrokenFileError("an entry is longer than its block")
        key = key[:shared] + content[at : at + own]
        yield key, content[at + own : at + own + length]
        at += own + length


def uncompressed(data: bytes) -> bytes:
    """What Snappy compressed: pieces of text, and copies of what was already said."""
    size, at = varint(data, 0)
    if size > LARGEST_BLOCK:
        raise BrokenFileError("a block is too large")
    found = bytearray()
    while at < len(data) and len(found) <= size:
        tag, at = data[at], at + 1
        if tag & 3 == 0:
            length, wide = (tag >> 2) + 1, max(0, (tag >> 2) - 59)
            if wide:
                length = int.from_bytes(data[at : at + wide], "little") + 1
            found += data[at + wide : at + wide + length]
            at += wide + length
            continue
        wide = (1, 2, 4)[(tag & 3) - 1]
        back = int.from_bytes(data[at : at + wide], "little")
        length = (tag >> 2) + 1
        if wide == 1:
            back, length = back | (tag >> 5) << 8, (tag >> 2 & 7) + 4
        at += wide
        if not 0 < back <= len(found):
            raise BrokenFileError("a compressed block copies what is not there")
        start = len(found) - back
        said = found[start : start + length]
        found += (said * -(-length // len(said)))[:length]
    if at != len(data) or len(found) != size:
        raise BrokenFileError("a compressed block does not have the size that it says")
    return bytes(found)
