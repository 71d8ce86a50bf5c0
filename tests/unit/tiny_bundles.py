"""A writer of TensorFlow checkpoints, from the description of their formats: what the reader is tested on.

`Tensor` entries can be given any field, so that an index can say anything; checksums are computed bit by bit, as slowly
and plainly as can be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

KINDS = {torch.float32: 1, torch.float64: 2, torch.int32: 3, torch.int64: 9, torch.bfloat16: 14, torch.float16: 19}


def checksum(data: bytes) -> int:
    """CRC-32C, masked as these formats store it."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 & -(register & 1))
    register ^= 0xFFFFFFFF
    return (((register >> 15) | (register << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    found = b""
    value &= 2**64 - 1
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def number(field: int, value: int) -> bytes:
    """A field of a message; zeros are not written."""
    return varint(field << 3) + varint(value) if value else b""


def text(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(
    kind: int, shape: tuple[int, ...], offset: int, size: int, crc: int, *, shard: int = 0, more: bytes = b""
) -> bytes:
    """A BundleEntryProto."""
    dimensions = b"".join(text(2, number(1, size)) for size in shape)
    found = number(1, kind) + text(2, dimensions) + number(3, shard) + number(4, offset) + number(5, size)
    return found + varint(6 << 3 | 5) + crc.to_bytes(4, "little") + more


HEADER = number(1, 1) + text(3, number(1, 1))


def block(entries: Mapping[bytes, bytes], *, every: int = 16) -> bytes:
    """A block of a table: keys share prefixes with those before, but for every so many."""
    content, restarts, before = b"", [0], b""
    for place, (key, value) in enumerate(entries.items()):
        shared = 0
        if place % every:
            while shared < min(len(before), len(key)) and before[shared] == key[shared]:
                shared += 1
        elif place:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return content + b"".join(place.to_bytes(4, "little") for place in [*restarts, len(restarts)])


def closed(content: bytes, kind: int = 0) -> bytes:
    """A block with its type and its checksum."""
    return content + bytes([kind]) + checksum(content + bytes([kind])).to_bytes(4, "little")


def compressed(content: bytes) -> bytes:
    """Snappy, of which repeated bytes are copied, all others said."""
    found, at, said = varint(len(content)), 0, b""
    while at < len(content):
        length = 4
        place = content.rfind(content[at : at + length], 0, at + length - 1) if at + length <= len(content) else -1
        if 0 <= place < at and at - place < 2048:
            while at + length < len(content) and length < 11 and content[place + length] == content[at + length]:
                length += 1
            found += _literal(said) + bytes([1 | (length - 4) << 2 | (at - place >> 8) << 5, at - place & 255])
            at, said = at + length, b""
        else:
            at, said = at + 1, said + content[at : at + 1]
    return found + _literal(said)


def _literal(said: bytes) -> bytes:
    if not said:
        return b""
    if len(said) <= 60:
        return bytes([len(said) - 1 << 2]) + said
    return bytes([61 << 2]) + (len(said) - 1).to_bytes(2, "little") + said


def table(blocks: list[dict[bytes, bytes]], *, snappy: bool = False, again: bool = False) -> bytes:
    """A table of these blocks; with `again` the index leads to the last one twice."""
    found, places = b"", {}
    for number_, entries in enumerate(blocks, start=1):
        content = compressed(block(entries)) if snappy else block(entries)
        last = next(reversed(entries))
        key = bytes([last[0] + 1]) if last and number_ == len(blocks) else last  # the shortest that comes after
        places[key] = varint(len(found)) + varint(len(content))
        found += closed(content, int(snappy))
    if again:
        places[key + b"z"] = places[key]
    descriptions, index = block({}), block(places, every=1)
    footer = varint(len(found)) + varint(len(descriptions))
    found += closed(descriptions)
    footer += varint(len(found)) + varint(len(index))
    return found + closed(index) + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def bundle(path: Path, tensors: Mapping[str, torch.Tensor], **options: Any) -> Path:
    """Writes PATH.index and PATH.data-00000-of-00001 and returns the former."""
    data, entries = b"", {b"": HEADER}
    for name, tensor in sorted(tensors.items()):
        raw = tensor.contiguous().view(-1).view(torch.uint8).numpy() if tensor.dim() else tensor.numpy()
        content = np.asarray(raw).tobytes()
        entries[name.encode()] = entry(
            KINDS[tensor.dtype], tuple(tensor.shape), len(data), len(content), checksum(content)
        )
        data += content
    return written(path, [entries], data, **options)


def written(path: Path, blocks: list[dict[bytes, bytes]], data: bytes = b"", **options: Any) -> Path:
    """The two files of a checkpoint, whatever they say."""
    path.with_name(f"{path.name}.data-00000-of-00001").write_bytes(data)
    index = path.with_name(f"{path.name}.index")
    index.write_bytes(table(blocks, **options))
    return index
