"""TensorFlow checkpoints: what is in them comes out, and whatever is wrong with them is refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import HEADER, bundle, checksum, entry, number, table, text, varint, written
from tiny_checkpoints import WORDS, on_disk, refused, same, tiny
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.weights import ConvertOptions, convert, load_model
from unilmctl.weights.checksums import crc32c, unmasked
from unilmctl.weights.messages import BrokenFileError
from unilmctl.weights.tables import entries, uncompressed
from unilmctl.weights.tensorflow import read_bundle

TINY = {"a": torch.tensor(0.5), "b": torch.tensor(3.0), "c": torch.tensor(3.0)}


def googles(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's tensors as Google names and turns them, and what its optimiser keeps beside them."""
    found = {}
    for name, tensor in tensors.items():
        stem, _, last = name.replace(".layer.", ".layer_").rpartition(".")
        stem = stem.replace(".", "/")
        if stem.endswith("LayerNorm"):
            found[f"{stem}/{'gamma' if last == 'weight' else 'beta'}"] = tensor
        elif stem.endswith("_embeddings"):
            found[stem] = tensor
        elif stem in ("cls/seq_relationship", "cls/predictions"):
            found[f"{stem}/output_{'weights' if last == 'weight' else 'bias'}"] = tensor
        elif last == "weight":
            found[f"{stem}/kernel"] = tensor.T
        else:
            found[f"{stem}/{last}"] = tensor
    training = {f"{name}/adam_{which}": tensor for name, tensor in found.items() for which in "mv"}
    return {**found, **training, "global_step": torch.tensor(7)}


def released(folder: Path, encoder: Encoder, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """A folder as Google released its models."""
    folder.mkdir()
    sizes = encoder.config
    said = {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feedforward,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.segments,
        "hidden_act": "gelu",
    }
    (folder / "bert_config.json").write_text(json.dumps(said | config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    bundle(folder / "bert_model.ckpt", tensors)
    return folder


@pytest.mark.parametrize("name", ["", "bert_model.ckpt", "bert_model.ckpt.index"])
def test_a_bert_of_google_is_converted_with_every_weight(name: str, tmp_path: Path) -> None:
    encoder = tiny(pair_head=True)
    folder = released(tmp_path / "google", encoder, googles(on_disk(encoder)))
    report = convert(str(folder / name), tmp_path / "model")
    assert same(load_model(tmp_path / "model").encoder, encoder)
    assert (report.config.family, report.head, report.missing, report.notes) == ("bert", "trained", [], [])
    count = 2 * len(on_disk(encoder))
    assert [tuple(one) for one in report.left_over] == [
        (f"bert/embeddings/LayerNorm/beta/adam_m and {count} more", "of the training, not of the model; not read")
    ]


def test_a_roformer_is_named_as_bert_where_it_was_released(tmp_path: Path) -> None:
    encoder = tiny(family="roformer", position="interleaved", pair_head=True)
    named = {name.replace("roformer.", "bert."): tensor for name, tensor in on_disk(encoder).items()}
    folder = released(tmp_path / "theirs", encoder, googles(named))
    convert(str(folder), tmp_path / "model", ConvertOptions(architecture="roformer"))
    assert same(load_model(tmp_path / "model").encoder, encoder)


def test_an_albert_of_google_is_converted_with_every_weight(tmp_path: Path) -> None:
    encoder = tiny(family="albert", embedding=4, layer_groups=1, pair_head=True)
    parts = {
        "albert_layer_groups.0.albert_layers.0": "transformer.group_0.inner_group_0",
        "inner_group_0.attention.dense": "inner_group_0.attention_1.output.dense",
        "inner_group_0.attention.LayerNorm": "inner_group_0.LayerNorm",
        "inner_group_0.attention.": "inner_group_0.attention_1.self.",
        "full_layer_layer_norm": "LayerNorm_1",
        "ffn_output": "ffn_1.intermediate.output.dense",
        "ffn.": "ffn_1.intermediate.dense.",
        "albert.pooler": "bert.pooler.dense",
        "albert.": "bert.",
        "predictions.dense": "cls.predictions.transform.dense",
        "predictions.LayerNorm": "cls.predictions.transform.LayerNorm",
        "predictions.bias": "cls.predictions.bias",
        "sop_classifier.classifier": "cls.seq_relationship",
    }
    theirs = {}
    for name, tensor in on_disk(encoder).items():
        for new, old in parts.items():
            name = name if old in name and new in old else name.replace(new, old)  # noqa: PLW2901
        theirs[name.replace("LayerNorm_1.", "LayerNorm_1/LayerNorm.")] = tensor
    named = {name.replace("LayerNorm_1/LayerNorm", "LayerNorm_1"): tensor for name, tensor in googles(theirs).items()}
    assert "bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/output/dense/kernel" in named
    config = {"embedding_size": 4, "num_hidden_groups": 1, "hidden_dropout_prob": 0.1}
    folder = released(tmp_path / "google", encoder, named, **config)
    report = convert(str(folder), tmp_path / "model")
    assert same(load_model(tmp_path / "model").encoder, encoder)
    assert (report.config.family, report.missing, report.notes) == ("albert", [], [])


def test_the_writer_of_these_tests_writes_what_tensorflow_writes(tmp_path: Path) -> None:
    """Two of the files of saved_model_half_plus_three, of TensorFlow Serving's own tests."""
    index = bundle(tmp_path / "variables", TINY)
    data = index.with_name("variables.data-00000-of-00001")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (index, data)]
    assert digests == ["af91ced2361cd946", "29c156759c0cd84d"]


@pytest.mark.parametrize("snappy", [False, True])
def test_types_and_shapes_come_out(snappy: bool, tmp_path: Path) -> None:
    tensors = {f"a/very/long/prefix/{index}/beta": torch.full((2, index), float(index)) for index in range(40)}
    tensors |= {"half": torch.ones(3, dtype=torch.float16), "brain": torch.ones(3, dtype=torch.bfloat16)}
    tensors["double"] = torch.rand(2, 3, 4, dtype=torch.float64)
    found = read_bundle(bundle(tmp_path / "x", tensors, snappy=snappy))
    assert found.keys() == {name.replace("/", ".") for name in tensors}
    for name, tensor in tensors.items():
        given = found[name.replace("/", ".")]
        assert given.dtype == tensor.dtype
        assert torch.equal(given, tensor)


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=30)
def test_checksums_are_those_computed_bit_by_bit(data: bytes) -> None:
    assert crc32c(data) == unmasked(checksum(data))


def test_checksums_of_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unilmctl.weights.checksums.PIECE", 1024)
    monkeypatch.setattr("unilmctl.weights.checksums.SHORT", 4)
    for size in (4, 511, 1023, 1024, 1025, 2048, 4099, 5000):
        data = bytes(index * 7 % 251 for index in range(size))
        assert crc32c(data) == unmasked(checksum(data))
    assert crc32c(b"123456789") == 0xE3069283


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_damaged_index_is_refused_or_says_the_same(data: st.DataObject) -> None:
    blocks = [{b"": HEADER, b"a/beta": b"one"}, {b"a/gamma": b"two", b"b": b"three"}]
    sound = table(blocks, snappy=data.draw(st.booleans()))
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = data.draw(
        st.sampled_from([sound[:place], sound[place:], sound[:place] + bytes([sound[place] ^ 64]) + sound[place + 1 :]])
    )
    try:
        found = list(entries(damaged))
    except BrokenFileError:
        return
    assert found == [(key, value) for entries_ in blocks for key, value in entries_.items()]


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=60)
def test_any_value_comes_out_of_a_block(nonsense: bytes) -> None:
    for snappy in (False, True):
        crafted = table([{b"": HEADER, b"a": nonsense, b"b": nonsense}], snappy=snappy)
        assert dict(entries(crafted)) == {b"": HEADER, b"a": nonsense, b"b": nonsense}


FOUR = checksum(bytes(4))
NEGATIVE = 2**64 - 1


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"a": entry(1, (2,), 0, 4, FOUR)}, "a tensor of shape [2] does not have 4 bytes"),
        ({"a": entry(1, (2**62, 4), 0, 4, FOUR)}, "does not have 4 bytes"),
        ({"a": entry(1, (NEGATIVE,), 0, 4, FOUR)}, "does not have 4 bytes"),
        ({"a": entry(1, (0, 2**63), 0, 0, FOUR)}, "is not possible"),
        ({"a": entry(1, (1,) * 9, 0, 4, FOUR)}, "a tensor has 9 dimensions"),
        ({"a": entry(1, (1,), 8, 4, FOUR)}, "'a' lies upon another tensor, or outside of x.data-00000-of-00001"),
        ({"a": entry(1, (1,), NEGATIVE - 3, 4, FOUR)}, "'a' lies upon another tensor, or outside of"),
        ({"a": entry(9, (1,), 0, 2**40, FOUR)}, "'a' lies upon another tensor, or outside of"),
        ({n: entry(1, (1,), 0, 4, FOUR) for n in "ab"}, "'b' lies upon another tensor, or outside of"),
        ({"a": entry(1, (1,), 0, 4, FOUR ^ 1)}, "the checksum of 'a' is wrong"),
        ({"a": entry(1, (1,), 0, 4, FOUR, shard=1)}, "a tensor lies in data file 1, but there are 1"),
        ({"a": entry(1, (1,), 0, 4, FOUR, more=text(7, b""))}, "a tensor is stored in slices"),
        ({"a": b"\x08\x80"}, "it ends in the middle of a number"),
        ({"a": b"\x08" + b"\x80" * 10 + b"\x01"}, "a number of more than 64 bits"),
        ({"a": text(2, b"x" * 9)[:5]}, "a field is longer than its message"),
        ({"a": b"\x0b"}, "a field of unknown type 3"),
        ({n: entry(1, (1, 1), i * 4, 4, FOUR) for i, n in enumerate(["x/kernel", "x/weight"])}, "under two names"),
        ({"": number(1, 1001)}, "1001 data files are not possible"),
        ({"": b""}, "0 data files are not possible"),
        ({"": number(1, 1) + number(2, 1)}, "its numbers are big-endian"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(listed: dict[str, bytes], message: str, tmp_path: Path) -> None:
    entries_ = {name.encode(): value for name, value in ({"": HEADER} | listed).items()}
    found = refused(read_bundle, written(tmp_path / "x", [entries_], bytes(8)))
    assert "not a sound TensorFlow checkpoint" in found
    assert message in found


def test_blocks_upon_each_other_and_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    assert "keys are not in order" in refused(read_bundle, written(tmp_path / "x", [{b"b": b"", b"a": b""}]))
    assert "keys are not in order" in refused(read_bundle, written(tmp_path / "y", [{b"c": b""}, {b"a": b""}]))
    twice = written(tmp_path / "z", [{b"": HEADER}], again=True)
    assert "blocks lie upon each other" in refused(read_bundle, twice)


def test_keys_that_share_what_they_begin_with_cannot_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key is the one before it and a byte more, which takes four bytes in the file."""
    monkeypatch.setattr("unilmctl.weights.tables.LARGEST_KEYS", 1000)
    index = written(tmp_path / "x", [{b"": HEADER} | {b"a" * length: b"" for length in range(1, 46)}])
    assert "its keys are too long" in refused(read_bundle, index)
    index = written(tmp_path / "x", [{b"": HEADER} | {b"a" * length: b"" for length in range(1, 45)}])
    assert len(read_bundle(index)) == 44


def test_what_is_no_such_checkpoint_is_named(tmp_path: Path) -> None:
    keras = {"model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE": torch.ones(2)}
    assert "an object-based checkpoint of TensorFlow 2" in refused(read_bundle, bundle(tmp_path / "x", keras))
    index = bundle(tmp_path / "y", TINY)
    index.with_name("y.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match="^cannot read .*z.index: No such file"):
        read_bundle(tmp_path / "z.index")
    with pytest.raises(ModelError, match="^cannot read .*y.data-00000-of-00001: No such file") as caught:
        read_bundle(index)
    assert caught.value.exit_code == 5


def test_a_data_file_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    encoder = tiny()
    folder = released(tmp_path / "google", encoder, googles(on_disk(encoder)))
    data = folder / "bert_model.ckpt.data-00000-of-00001"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a link out of its folder"):
        convert(str(folder), tmp_path / "model")


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (varint(8) + b"\x00a\x01\x02", "copies what is not there"),
        (varint(8) + b"\x00a\x01\x00", "copies what is not there"),
        (varint(9) + b"\x00a\x0d\x01", "does not have the size that it says"),
        (varint(2) + b"\x04a", "does not have the size that it says"),
        (varint(2**32) + b"\x00a", "a block is too large"),
    ],
)
def test_blocks_that_are_compressed_wrongly_are_refused(packed: bytes, message: str) -> None:
    with pytest.raises(BrokenFileError, match=message):
        uncompressed(packed)
    assert uncompressed(varint(8) + b"\x04ab\x09\x02") == b"abababab"
