"""Token stores: token ids on disk, memory-mapped, so that a corpus larger than the memory trains.

A store is a folder: `store.json` (what is in it and what it was made from), `shard-00000.safetensors` ... and
MANIFEST.json. A shard holds, for every field, one flat array of tokens (`source.tokens`, uint16 where the ids allow it,
else int32; uint8 for flags) and the places where examples begin and end in it (`source.offsets`, int64, one more than
there are examples). A store is written beside its place in constant memory, and renamed into it when it is whole.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from unilmctl.errors import DataError, WriteError
from unilmctl.files import MANIFEST, beside_of, clear_leftovers, publish_folder, write_atomically, write_errors
from unilmctl.rows import Example

VERSION = 1
SHARD_TOKENS = 1 << 24
"""Tokens after which a shard is closed: 32 to 64 MiB."""

DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}


class StoreWriter:
    """Writes a store in a stream; nothing is at `folder` before `close`.

    `meta` is kept as it is, and is what `Store.is_stale` compares; `summary`, which may be set until the end, is kept
    beside it: what there is to say about the data. As a context manager it closes at the end of the
    block, and leaves no trace after an exception.
    """

    def __init__(
        self, folder: Path, fields: Sequence[str], meta: dict[str, Any], *, shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self._folder, self._fields, self._meta, self._shard_tokens = folder, tuple(fields), meta, shard_tokens
        self._temporary = beside_of(folder)
        with write_errors(self._temporary):
            clear_leftovers(folder)
            self._temporary.mkdir(parents=True)
        self._shards: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self._clear()

    def _clear(self) -> None:
        self._tokens: dict[str, list[NDArray[Any]]] = {field: [] for field in self._fields}
        self._lengths: dict[str, list[NDArray[np.int64]]] = {field: [] for field in self._fields}
        self._held = 0

    def add(self, **arrays: Sequence[int] | NDArray[Any]) -> None:
        """One example: the token ids of every field."""
        ids = {field: np.asarray(array, dtype=np.int32) for field, array in arrays.items()}
        self.add_many(**{field: (array, np.array([len(array)], dtype=np.int64)) for field, array in ids.items()})

    def add_many(self, **arrays: tuple[NDArray[Any], NDArray[np.int64]]) -> int:
        """Many examples at once: per field the tokens of all of them one after another, and their lengths [N].

        Gives N; no fields at all are no examples.
        """
        if not arrays:
            return 0
        if arrays.keys() != set(self._fields):
            raise ValueError(f"a store of {self._fields} was given {tuple(arrays)}")
        for field, (tokens, lengths) in arrays.items():
            self._tokens[field].append(tokens.astype(np.int32, copy=False))
            self._lengths[field].append(lengths.astype(np.int64, copy=False))
            self._held += len(tokens) + 4 * len(lengths)
        if self._held >= self._shard_tokens:
            self._flush()
        return len(lengths)

    def _flush(self) -> None:
        """Write what is held as the next shard."""
        arrays: dict[str, NDArray[Any]] = {}
        for field in self._fields:
            tokens = _joined(self._tokens[field], np.int32)
            lengths = _joined(self._lengths[field], np.int64)
            arrays[f"{field}.tokens"] = tokens.astype(_smallest(tokens))
            arrays[f"{field}.offsets"] = np.concatenate(([0], np.cumsum(lengths))).astype("<i8")
        name = f"shard-{len(self._shards):05d}.safetensors"
        path = self._temporary / name
        with write_errors(path):
            try:
                save_file(arrays, path)
            except SafetensorError as error:
                raise WriteError(f"cannot write {path}: {error}") from error
        self._shards.append({"file": name, "examples": len(lengths)})
        self._clear()

    def close(self) -> None:
        """Write the last shard and store.json, and put the store in its place."""
        if self._held or not self._shards:
            self._flush()
        examples = sum(shard["examples"] for shard in self._shards)
        content = {"version": VERSION, "fields": self._fields, "examples": examples, "shards": self._shards}
        content |= {"meta": self._meta, "summary": self.summary}
        with write_atomically(self._temporary / "store.json") as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        publish_folder(self._temporary, self._folder)

    def discard(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()


class Store:
    """A written store. `meta` and `summary` are what the writer was given; `folder` where it lies.

    Its arrays are views of the files: nothing is read before it is needed.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.fields: tuple[str, ...] = tuple(content["fields"])
        self.meta: dict[str, Any] = content["meta"]
        self.summary: dict[str, Any] = content["summary"]
        self._shards = [_map(folder / shard["file"]) for shard in content["shards"]]
        counts = [len(shard[f"{self.fields[0]}.offsets"]) - 1 for shard in self._shards]
        if counts != [shard["examples"] for shard in content["shards"]]:
            raise DataError(f"{folder}: the shards do not hold what store.json says", REBUILD)
        self._starts = np.cumsum([0, *counts])

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """The store at `folder`. DataError when there is none, or when it is not whole."""
        try:
            content = json.loads((folder / "store.json").read_bytes())
            _check_sizes(folder)
            if content["version"] != VERSION:
                raise DataError(f"{folder}: a store of version {content['version']}, not {VERSION}", REBUILD)
            return cls(folder, content)
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no token store ({Path(error.filename).name} is missing)", REBUILD) from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise DataError(f"{folder}: the token store is broken: {error}", REBUILD) from error

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        """Source and target of one example, without special tokens. IndexError beyond the end."""
        return Example(self.field("source", index), self.field("target", index))

    def part(self, name: str, index: int, start: int, stop: int) -> NDArray[np.int64]:
        """Values `start` to `stop` of one field of one example: what lies beyond is not read."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[number], index - int(self._starts[number])
        first, end = shard[f"{name}.offsets"][row : row + 2]
        return np.array(shard[f"{name}.tokens"][first + start : min(first + stop, end)], dtype=np.int64)

    def shards(self, name: str) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """The field `name` shard by shard: all its values, and where examples begin and end in them [N + 1]."""
        for shard in self._shards:
            yield shard[f"{name}.tokens"], shard[f"{name}.offsets"]

    def field(self, name: str, index: int) -> NDArray[np.int64]:
        """The token ids of one field of one example [T]."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[number], index - int(self._starts[number])
        start, end = shard[f"{name}.offsets"][row : row + 2]
        return np.array(shard[f"{name}.tokens"][start:end], dtype=np.int64)

    def lengths(self, name: str) -> NDArray[np.int32]:
        """How many tokens the field `name` has in every example [N]."""
        return np.concatenate([np.diff(shard[f"{name}.offsets"]).astype(np.int32) for shard in self._shards])

    def is_stale(self, meta: dict[str, Any]) -> str | None:
        """Why this store is not what `meta` asks for; None when it is."""
        return difference(self.meta, json.loads(json.dumps(meta)))


REBUILD = "`unilmctl preprocess` builds it again"


def difference(old: object, new: object, name: str = "") -> str | None:
    """The first difference between two JSON values, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            found = difference(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return None
    return None if old == new else f"{name} was {_short(old)}, is {_short(new)}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _smallest(tokens: NDArray[Any]) -> str:
    """The type that holds the tokens: a byte for flags, two where ids allow it, else four."""
    largest = int(tokens.max(initial=0))
    return "u1" if largest < 2 else "<u2" if largest < 1 << 16 else "<i4"


def _joined(parts: list[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _map(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as views of its bytes. ValueError when the header does not fit the file."""
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # plain: slices of a memmap itself are slow
    size = int.from_bytes(data[:8].tobytes(), "little")
    if size > len(data) - 8:
        raise ValueError(f"{path.name} is cut short")
    header = json.loads(data[8 : 8 + size].tobytes())
    body = data[8 + size :]
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            if not 0 <= start <= end <= len(body):
                raise ValueError(f"{path.name}: {name} lies outside the file")
            arrays[name] = body[start:end].view(DTYPES[entry["dtype"]])
    return arrays


def _check_sizes(folder: Path) -> None:
    """Every file has the size that the manifest says: cheap, and finds what was cut short."""
    listed = json.loads((folder / MANIFEST).read_bytes())["files"]
    for name, entry in listed.items():
        size = (folder / Path(name).name).stat().st_size
        if size != entry["size"]:
            raise ValueError(f"{name} has {size} bytes, the manifest says {entry['size']}")
