"""Heads and second positions on disk: saved, loaded, grown."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import same, tiny, write_config, write_vocabulary

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, HeadConfig
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ModelCard, convert, load_model, save_model
from unilmctl.weights.adapting import with_heads, with_inner_positions, with_vocabulary
from unilmctl.weights.names import rules, to_disk

HEADS = (
    HeadConfig("next-sentence", "class"),
    HeadConfig("topic", "class", 3, ("sport", "money", "art")),
    HeadConfig("grade", "regression", 1),
    HeadConfig("tag", "token", 5),
    HeadConfig("answer", "span"),
    HeadConfig("replaced", "replaced"),
    HeadConfig("boundary", "boundary"),
    HeadConfig("alike", "contrastive"),
)


def headed(**changes: object) -> Encoder:
    return tiny(heads_extra=HEADS, pair_head=True, inner_positions=6, **changes)


def saved(folder: Path, encoder: Encoder) -> Path:
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder)
    save_model(folder, encoder, ModelCard(), Tokenizer.load(folder))
    return folder


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_every_kind_of_head_comes_back_bit_equal(tmp_path: Path, family: str) -> None:
    encoder = headed(family=family)
    again = load_model(saved(tmp_path, encoder)).encoder
    assert again.config == encoder.config
    assert same(encoder, again)


def test_heads_have_names_of_their_own() -> None:
    names = set(to_disk(rules(headed().config), headed().state_dict())) - set(
        to_disk(rules(tiny().config), tiny().state_dict())
    )
    assert {name.partition(".")[0] for name in names} == {
        "heads", "cls", "discriminator_predictions", "inner_position_embeddings"
    }  # fmt: skip
    assert "heads.topic.dense.weight" in names
    assert "discriminator_predictions.dense_prediction.weight" in names
    assert {name for name in names if name.startswith("cls.")} == {
        "cls.seq_relationship.weight", "cls.seq_relationship.bias"
    }  # fmt: skip


def test_conversion_leaves_heads_alone(tmp_path: Path) -> None:
    encoder = headed()
    report = convert(str(saved(tmp_path / "old", encoder)), tmp_path / "new")
    assert same(load_model(tmp_path / "new").encoder, encoder)
    assert report.left_over == []
    assert report.missing == []


def test_a_smaller_vocabulary_cuts_the_boundary_head_too() -> None:
    encoder = headed()
    smaller = with_vocabulary(encoder, torch.tensor([0, 1, 2, 3, 4, 9]), 0)
    assert torch.equal(smaller.extra["boundary"].bias, encoder.extra["boundary"].bias[[0, 1, 2, 3, 4, 9]])


def test_new_heads_are_put_beside_the_old_ones() -> None:
    encoder = tiny(heads_extra=HEADS[1:2])
    grown = with_heads(encoder, HEADS, torch.Generator().manual_seed(1))
    before, after = encoder.state_dict(), grown.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not grown.training
    assert float(grown.extra["tag"].dense.weight.detach().std()) == pytest.approx(0.02, rel=0.5)
    assert not grown.extra["tag"].dense.bias.any()
    assert set(after) == set(headed().state_dict()) - {"embeddings.inner.weight"}
    assert with_heads(grown, (), torch.Generator()).config.heads_extra == ()


def test_a_head_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        with_heads(headed(), [HeadConfig("topic", "class", 4)], torch.Generator())
    expected = "the model's head 'topic' is of kind class with 3 classes, not class with 4"
    assert (caught.value.message, caught.value.hint) == (expected, "give the new head another name")


def test_second_positions_grow_onto_any_model_and_change_nothing() -> None:
    encoder = tiny()
    grown = with_inner_positions(encoder, 6)
    assert not grown.embeddings.inner.weight.any()
    ids = torch.randint(5, 20, (1, 4))
    row = (ids, torch.arange(4)[None], torch.zeros_like(ids))
    inner = torch.tensor([[0, 1, 2, 3]])
    assert torch.equal(encoder.embeddings(*row), grown.embeddings(*row, inner))
    known = headed()
    more = with_inner_positions(known, 9)
    assert torch.equal(more.embeddings.inner.weight[:6], known.embeddings.inner.weight)
    assert not more.embeddings.inner.weight[6:].any()
    assert with_inner_positions(known, 3) is known
    assert not torch.equal(known.embeddings(*row), known.embeddings(*row, inner))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("topic", "'unilmctl_heads' is not a list of heads"),
        ([{"name": "x"}], "'unilmctl_heads' has an entry that describes no head: {'name': 'x'}"),
        (
            [{"name": "x", "kind": "class", "classes": 10**9, "labels": []}],
            "'unilmctl_heads' has an entry that describes no head:",
        ),
        ([{"name": "x", "kind": "oracle", "classes": 2, "labels": []}], "head 'x' is of no known kind"),
    ],
)
def test_a_list_of_heads_that_is_none_is_refused(tmp_path: Path, listed: object, message: str) -> None:
    saved(tmp_path, tiny())
    write_config(tmp_path, tiny().config, unilmctl_heads=listed)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["heads.topic.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.bias"])
def test_a_head_without_its_weights_is_refused(tmp_path: Path, name: str) -> None:
    saved(tmp_path, headed())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"'{name}' is missing"):
        load_model(tmp_path)
