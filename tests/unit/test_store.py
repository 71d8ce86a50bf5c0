"""Token stores: what is written is read, whole or not at all."""

import json
import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from unilmctl.data.store import Store, StoreWriter, difference
from unilmctl.errors import DataError
from unilmctl.files import verify_manifest

FIELDS = ("source", "target")
PAIRS = [([1, 2, 3], [4]), ([], []), ([65535], [65534, 0]), ([7] * 50, [])]


def write(folder: Path, pairs: list[tuple[list[int], list[int]]], shard_tokens: int = 1 << 24) -> Store:
    with StoreWriter(folder, FIELDS, {"limits": {"max": 1}}, shard_tokens=shard_tokens) as writer:
        for source, target in pairs:
            writer.add(source=source, target=target)
        writer.summary = {"cut": 2}
    return Store.open(folder)


def read(store: Store) -> list[tuple[list[int], list[int]]]:
    return [(store[i].source.tolist(), store[i].target.tolist()) for i in range(len(store))]


@pytest.mark.parametrize("shard_tokens", [1, 30, 1 << 24])
def test_what_is_written_is_read(tmp_path: Path, shard_tokens: int) -> None:
    store = write(tmp_path / "store", PAIRS, shard_tokens)
    assert read(store) == PAIRS
    assert store.lengths("source").tolist() == [3, 0, 1, 50]
    assert store.lengths("target").tolist() == [1, 0, 2, 0]
    assert store[0].source.dtype == np.int64
    assert (store.meta, store.summary) == ({"limits": {"max": 1}}, {"cut": 2})
    shards = sorted((tmp_path / "store").glob("shard-*.safetensors"))
    assert len(shards) == {1: 4, 30: 2, 1 << 24: 1}[shard_tokens]
    assert verify_manifest(tmp_path / "store") == []


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(*[st.lists(st.integers(0, 250_001), max_size=9)] * 2), max_size=20),
    bound=st.integers(1, 60),
)
def test_any_pairs(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[int], list[int]]], bound: int
) -> None:
    assert read(write(tmp_path_factory.mktemp("any") / "s", pairs, bound)) == pairs


def test_many_at_once_is_the_same(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "many", FIELDS, {}) as writer:
        arrays = {}
        for place, field in enumerate(FIELDS):
            parts = [pair[place] for pair in PAIRS]
            arrays[field] = (np.array(sum(parts, []), dtype=np.int32), np.array([len(part) for part in parts]))
        writer.add_many(**arrays)
    assert read(Store.open(tmp_path / "many")) == PAIRS


def test_a_shard_is_a_safetensors_file_of_small_integers(tmp_path: Path) -> None:
    write(tmp_path / "small", PAIRS)
    arrays = load_file(tmp_path / "small" / "shard-00000.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "source.tokens": "uint16",
        "source.offsets": "int64",
        "target.tokens": "uint16",
        "target.offsets": "int64",
    }
    assert arrays["source.offsets"].tolist() == [0, 3, 3, 4, 54]
    large = write(tmp_path / "large", [([65536], [1])])
    assert load_file(tmp_path / "large" / "shard-00000.safetensors")["source.tokens"].dtype == np.int32
    assert large[0].source.tolist() == [65536]


def test_tokens_are_mapped_not_read(tmp_path: Path) -> None:
    store = write(tmp_path / "s", PAIRS)
    tokens = store._shards[0]["source.tokens"]
    base = tokens
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base.base, mmap.mmap)
    assert not tokens.flags.owndata


def test_index_beyond_the_end(tmp_path: Path) -> None:
    store = write(tmp_path / "s", PAIRS)
    for index in (4, -1):
        with pytest.raises(IndexError):
            store[index]


def test_rewriting_replaces(tmp_path: Path) -> None:
    write(tmp_path / "s", PAIRS, 1)
    assert read(write(tmp_path / "s", [([1], [2])])) == [([1], [2])]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "MANIFEST.json",
        "shard-00000.safetensors",
        "store.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_exception_leaves_the_old_store(tmp_path: Path) -> None:
    write(tmp_path / "s", PAIRS)

    def interrupted() -> None:
        with StoreWriter(tmp_path / "s", FIELDS, {}, shard_tokens=1) as writer:
            writer.add(source=[1], target=[1])
            raise KeyError("interrupted")

    with pytest.raises(KeyError):
        interrupted()
    assert read(Store.open(tmp_path / "s")) == PAIRS
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_wrong_fields_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", FIELDS, {})
    with pytest.raises(ValueError, match="was given"):
        writer.add(source=[1])
    writer.discard()


def test_stale_stores_say_why(tmp_path: Path) -> None:
    store = write(tmp_path / "s", PAIRS)
    assert store.is_stale({"limits": {"max": 1}}) is None
    assert store.is_stale({"limits": {"max": 2}}) == "limits.max was 1, is 2"
    assert store.is_stale({"limits": {"max": 1}, "new": True}) == "new was null, is true"
    assert store.is_stale({}) == 'limits was {"max": 1}, is null'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b was [1], is [2]"),
        ({"a": "x" * 99}, {"a": "y"}, f'a was "{"x" * 56}..., is "y"'),
    ],
)
def test_difference(old: object, new: object, words: str | None) -> None:
    assert difference(old, new) == words


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no token store \(store\.json is missing\)") as caught:
        Store.open(tmp_path)
    assert caught.value.hint == "`unilmctl preprocess` builds it again"


def test_every_cut_of_a_shard_is_found(tmp_path: Path) -> None:
    write(tmp_path / "s", PAIRS)
    shard = tmp_path / "s" / "shard-00000.safetensors"
    content = shard.read_bytes()
    for size in range(0, len(content), 37):
        shard.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"the token store is broken: shard-00000\.safetensors has"):
            Store.open(tmp_path / "s")


@pytest.mark.parametrize("name", ["store.json", "MANIFEST.json", "shard-00000.safetensors"])
def test_every_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "s", PAIRS)
    (tmp_path / "s" / name).unlink()
    with pytest.raises(DataError, match=name):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 99}', b"\xff"])
def test_broken_store_json(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "s", PAIRS)
    (tmp_path / "s" / "store.json").write_bytes(content)
    with pytest.raises(DataError, match="store"):
        Store.open(tmp_path / "s")


def refitted(folder: Path, header: bytes, body: bytes) -> None:
    """Replace the shard, and make the manifest's size fit."""
    shard = folder / "shard-00000.safetensors"
    shard.write_bytes(header + body)
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    manifest["files"][shard.name]["size"] = len(header + body)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "header",
    [
        (1 << 60).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"{]",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (64).to_bytes(8, "little") + b'{"source.offsets":{"dtype":"I64","data_offsets":[0,1099511627]}}',
        (54).to_bytes(8, "little") + b'{"source.offsets":{"dtype":"X1","data_offsets":[0,8]}}',
    ],
)
def test_hostile_headers_are_data_errors(tmp_path: Path, header: bytes) -> None:
    write(tmp_path / "s", PAIRS)
    refitted(tmp_path / "s", header, b"\0" * 16)
    with pytest.raises(DataError, match="the token store is broken|do not hold"):
        Store.open(tmp_path / "s")
