"""Checkpoints of TensorFlow 1, read without it: NAME.index and NAME.data-00000-of-00001.

The index is a sorted table (see `tables`) that says of every tensor its type, its shape, and which bytes of which data
file it is. Nothing in it is believed: no tensor may lie outside a file or upon another one, and every checksum is
computed. What only training needs is not read; it comes out as empty tensors with `/` before their names, so that it
can be accounted for.

(TensorFlow's tensor_bundle.proto, tensor_shape.proto, types.proto.)
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.weights.checksums import crc32c, unmasked
from unilmctl.weights.messages import BrokenFileError, fields
from unilmctl.weights.names import Tensors
from unilmctl.weights.tables import entries

LARGEST_INDEX = 64 * 2**20
MOST_SHARDS, MOST_DIMENSIONS, MOST_NUMBERS = 1_000, 8, 2**40

FLOATS = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}
"""TensorFlow's numbers of the types that weights have."""

PASSING = re.compile(r"(^|/)(adam_[mv]|lamb_[mv]|Adam(_\d+)?|Momentum|beta[12]_power|global_step)$")
"""Names of what only an optimiser needs."""


class Entry(NamedTuple):
    """Where a tensor lies: bytes `offset` to `offset + size` of data file number `shard`."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read_bundle(index: Path) -> Tensors:
    """Every tensor of a checkpoint, under the names that PyTorch's copies of these models have."""
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ModelError(f"{index}: {index.stat().st_size} bytes are too many for an index")
        found = dict(entries(index.read_bytes()))
        shards = _shards(found.pop(b"", b""))
        listed = {name.decode(): _entry(value, shards) for name, value in found.items()}
        if any(name.endswith("VARIABLE_VALUE") for name in listed):
            raise ModelError(f"{index}: an object-based checkpoint of TensorFlow 2", "give the one of TensorFlow 1")
        return _read(index, listed, shards)
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror or error}") from error
    except (BrokenFileError, UnicodeDecodeError) as error:
        raise ModelError(f"{index}: not a sound TensorFlow checkpoint ({error})") from error


def _shards(header: bytes) -> int:
    """How many data files there are."""
    values = {field.number: field.value for field in fields(header)}
    if values.get(2, 0) != 0:
        raise BrokenFileError("its numbers are big-endian")
    if not 1 <= values.get(1, 0) <= MOST_SHARDS:
        raise BrokenFileError(f"{values.get(1, 0)} data files are not possible")
    return values[1]


def _entry(message: bytes, shards: int) -> Entry:
    found = {field.number: field for field in fields(message)}
    if 7 in found:
        raise BrokenFileError("a tensor is stored in slices")
    kind, shard, offset, size, checksum = (found[n].value if n in found else 0 for n in (1, 3, 4, 5, 6))
    if shard >= shards:
        raise BrokenFileError(f"a tensor lies in data file {shard}, but there are {shards}")
    shape = _shape(found[2].content if 2 in found else b"")
    if kind in FLOATS and math.prod(shape) * FLOATS[kind].itemsize != size:
        raise BrokenFileError(f"a tensor of shape {list(shape)} does not have {size} bytes")
    if math.prod(max(size, 1) for size in shape) > MOST_NUMBERS:
        raise BrokenFileError(f"a tensor of shape {list(shape)} is not possible")
    return Entry(kind, shape, shard, offset, size, checksum)


def _shape(message: bytes) -> tuple[int, ...]:
    dimensions = [field.content for field in fields(message) if field.number == 2]
    if len(dimensions) > MOST_DIMENSIONS:
        raise BrokenFileError(f"a tensor has {len(dimensions)} dimensions")
    return tuple(next((field.value for field in fields(one) if field.number == 1), 0) for one in dimensions)


def _read(index: Path, listed: dict[str, Entry], shards: int) -> Tensors:
    """The tensors, file by file, each from where it lies."""
    tensors: Tensors = {}
    for shard in range(shards):
        path = index.with_name(f"{index.stem}.data-{shard:05d}-of-{shards:05d}")
        inside = sorted((entry.offset, entry.size, name) for name, entry in listed.items() if entry.shard == shard)
        with path.open("rb") as file:
            end, size = 0, path.stat().st_size
            for offset, length, name in inside:
                if offset < end or offset + length > size:
                    raise BrokenFileError(f"'{name}' lies upon another tensor, or outside of {path.name}")
                entry, end = listed[name], offset + length
                if PASSING.search(name) or entry.kind not in FLOATS:
                    tensors[f"/{name}"] = torch.empty(0)
                    continue
                file.seek(offset)
                given, tensor = pytorch_name(name), _tensor(file.read(length), entry, name)
                if given in tensors:
                    raise BrokenFileError(f"'{given}' is there under two names")
                tensors[given] = tensor.T.contiguous() if name.endswith("/kernel") and tensor.dim() == 2 else tensor
    return tensors


def _tensor(content: bytes, entry: Entry, name: str) -> Tensor:
    if crc32c(content) != unmasked(entry.checksum):
        raise BrokenFileError(f"the checksum of '{name}' is wrong")
    if not content:
        return torch.empty(entry.shape, dtype=FLOATS[entry.kind])
    return torch.frombuffer(bytearray(content), dtype=FLOATS[entry.kind]).reshape(entry.shape)


def pytorch_name(name: str) -> str:
    """`bert/encoder/layer_0/output/dense/kernel` as `bert.encoder.layer.0.output.dense.weight`, and so on."""
    stem, _, last = name.rpartition("/")
    stem = re.sub(r"/layer_(\d+)(?=/|$)", r"/layer.\1", stem)
    said = {"kernel": "weight", "output_weights": "weight", "output_bias": "bias"}.get(last, last)
    if re.search(r"_embeddings$", last):
        said = f"{last}.weight"
    return f"{stem}/{said}".removeprefix("/").replace("/", ".")
