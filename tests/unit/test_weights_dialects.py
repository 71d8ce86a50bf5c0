"""Other spellings of the same weights end up as the same encoder, with nothing unaccounted for."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_checkpoints import SWITCHES, on_disk, same, tiny
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.weights.assembling import Assembly, assemble
from unilmctl.weights.configuration import hugging_face_config
from unilmctl.weights.families import FAMILIES
from unilmctl.weights.names import constants

Tensors = dict[str, Tensor]


def read(tensors: Tensors, encoder: Encoder, architecture: str | None = None, **changes: object) -> Assembly:
    raw = {**hugging_face_config(encoder.config), **changes}
    return assemble(tensors, {k: v for k, v in raw.items() if v is not None}, "here", architecture)


def old_norms(tensors: Tensors) -> Tensors:
    spelling = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    out = {}
    for name, tensor in tensors.items():
        new = next((name.removesuffix(old) + said for old, said in spelling.items() if name.endswith(old)), name)
        out[new] = tensor
    return out


def bare(tensors: Tensors) -> Tensors:
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}


def wrapped(tensors: Tensors) -> Tensors:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def fused(tensors: Tensors) -> Tensors:
    out = dict(tensors)
    for name in [name for name in tensors if name.endswith("self.query.weight")]:
        stem = name.removesuffix("query.weight")
        out[f"{stem}qkv_linear.weight"] = torch.cat([out.pop(f"{stem}{p}.weight") for p in ("query", "key", "value")])
        out[f"{stem}q_bias"] = out.pop(f"{stem}query.bias").view(1, 1, -1)
        out[f"{stem}v_bias"] = out.pop(f"{stem}value.bias").view(1, 1, -1)
        del out[f"{stem}key.bias"]
    if "bert.rel_pos_bias.weight" in out:
        out["bert.encoder.rel_pos_bias.weight"] = out.pop("bert.rel_pos_bias.weight")
    return out


def without_key_bias(encoder: Encoder) -> Encoder:
    for name, tensor in encoder.state_dict().items():
        if name.endswith("qkv.bias"):
            tensor[8:16].zero_()
    return encoder


@pytest.mark.parametrize("spelling", [old_norms, bare, wrapped, fused, lambda tensors: wrapped(old_norms(tensors))])
def test_a_spelling_changes_nothing(spelling: Callable[[Tensors], Tensors]) -> None:
    encoder = without_key_bias(tiny(relative_buckets=8, pair_head=True))
    assembly = read(spelling(on_disk(encoder)), encoder)
    assert same(assembly.encoder, encoder)
    assert (assembly.missing, assembly.left_over, assembly.notes) == ([], [], [])


@pytest.mark.parametrize("family", [*FAMILIES][2:])
def test_a_bare_encoder_of_another_family(family: str) -> None:
    more = {"electra": {"embedding": 4}, "albert": {"embedding": 4, "layer_groups": 1}, **SWITCHES}
    encoder = tiny(family=family, pooler=False, **more.get(family, {}))
    prefix = FAMILIES[family].named("")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in on_disk(encoder).items()}
    assert same(read(tensors, encoder).encoder, encoder)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "xlm-roberta"])
def test_the_names_tell_the_family_where_the_configuration_does_not(family: str) -> None:
    encoder = tiny(family=family, **SWITCHES.get(family, {}))
    assert read(on_disk(encoder), encoder, model_type=None, pad_token_id=0).encoder.config.family == family


def test_a_nameless_family_must_be_said() -> None:
    encoder = tiny()
    with pytest.raises(ModelError, match="here: neither config.json nor the tensors' names tell the architecture") as e:
        read(bare(on_disk(encoder)), encoder, model_type=None)
    assert e.value.hint == f"say it with --architecture {'|'.join(FAMILIES)}"
    assert same(read(bare(on_disk(encoder)), encoder, "bert", model_type=None).encoder, encoder)


def test_copies_and_constants_of_s2s_ft_are_accounted_for() -> None:
    encoder = tiny(pooler=False)
    tensors = on_disk(encoder)
    words = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder_weight"] = words.clone()
    tensors["crit_mask_lm_smoothed.one_hot"] = torch.zeros(1, 27)
    tensors["bert.embeddings.position_ids"] = torch.arange(10)[None]
    assembly = read(tensors, encoder)
    assert same(assembly.encoder, encoder)
    assert [tuple(one) for one in assembly.left_over] == [
        ("cls.predictions.decoder_weight", "the same as bert.embeddings.word_embeddings.weight"),
        ("crit_mask_lm_smoothed.one_hot", "a constant that needs no storing"),
        ("bert.embeddings.position_ids", "a constant that needs no storing"),
    ]


@pytest.mark.parametrize(
    ("family", "copy", "original"),
    [
        ("bert", "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("bert", "cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("roberta", "lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
        ("xlm-roberta", "lm_head.decoder.bias", "lm_head.bias"),
        ("electra", "generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"),
    ],
)
def test_tied_copies(family: str, copy: str, original: str) -> None:
    encoder = tiny(family=family, pooler=False)
    tensors = on_disk(encoder)
    tensors[copy] = tensors[original].clone()
    assert [tuple(one) for one in read(dict(tensors), encoder).left_over] == [(copy, f"the same as {original}")]
    renamed = {copy if name == original else name: tensor for name, tensor in on_disk(encoder).items()}
    alone = read(renamed, encoder)
    assert same(alone.encoder, encoder)
    assert alone.left_over == []
    tensors[copy] += 1
    (untied,) = read(tensors, encoder).left_over
    assert untied.reason == f"differs from {original}, to which the output layer is tied here"


def test_heads_of_other_tasks_are_left_over() -> None:
    encoder = tiny(family="electra", embedding=4, pooler=False)
    tensors = {name: tensor for name, tensor in on_disk(encoder).items() if not name.startswith("generator")}
    tensors["discriminator_predictions.dense.weight"] = torch.zeros(8, 8)
    assembly = read(tensors, encoder)
    assert assembly.head == "missing"
    assert [tuple(one) for one in assembly.left_over] == [
        ("discriminator_predictions.dense.weight", "no part of this model")
    ]


def test_a_sentence_order_head_of_three_classes_is_no_pair_head() -> None:
    encoder = tiny()
    tensors = on_disk(encoder) | {"cls.seq_relationship.weight": torch.zeros(3, 8)}
    assembly = read(tensors, encoder)
    assert assembly.encoder.pair is None
    assert [one.name for one in assembly.left_over] == ["cls.seq_relationship.weight"]


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.crossattention.self.query.weight",
        "bert.embeddings.task_type_embeddings.weight",
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
    ],
)
def test_unknown_parts_of_the_encoder_are_refused(name: str) -> None:
    encoder = tiny()
    with pytest.raises(ModelError, match=f"here: '{name}' has no place in the encoder that config.json describes"):
        read(on_disk(encoder) | {name: torch.zeros(8, 8)}, encoder)


@pytest.mark.parametrize("said", ["nezha", "bert", None])
def test_huaweis_nezha_is_named_as_bert(said: str | None) -> None:
    encoder = tiny(family="nezha", **SWITCHES["nezha"])
    tensors = {name.replace("nezha.", "bert."): tensor for name, tensor in on_disk(encoder).items()}
    table = "bert.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding"
    assembly = read(tensors | {table: torch.zeros(10, 10, 4)}, encoder, model_type=said)
    assert same(assembly.encoder, encoder)
    assert (assembly.encoder.config, assembly.notes) == (encoder.config, [])
    assert [tuple(one) for one in assembly.left_over] == [
        (table.replace("bert.", "nezha."), "a constant that needs no storing")
    ]


def test_roformers_angles_are_those_that_the_configuration_makes() -> None:
    encoder = tiny(family="roformer", **SWITCHES["roformer"])
    [(name, angles)] = constants(encoder.config).items()
    assert name == "roformer.encoder.embed_positions.weight"
    expected = [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    assert angles[3].tolist() == pytest.approx(expected, abs=1e-7)
    assembly = read(on_disk(encoder) | {name: angles[:7].half()}, encoder)
    assert same(assembly.encoder, encoder)
    assert [tuple(one) for one in assembly.left_over] == [
        (name, "a constant that is made again when the model is written")
    ]
    for other in (angles + 0.1, angles[:, :2], angles.long(), angles[0]):
        with pytest.raises(ModelError, match="here: 'roformer.encoder.embed_positions.weight' is not what config.json"):
            read(on_disk(encoder) | {name: other}, encoder)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("roformer", {"rotary_value": True}, "'rotary_value' is true; values that are turned are not supported"),
        ("roformer", {"rotary_value": 1}, "'rotary_value' is 1; it must be true or false"),
        ("roformer", {"norm_type": "rms_norm"}, "RoFormer's version 2 is not supported"),
        ("roformer", {"use_bias": False}, "RoFormer's version 2 is not supported"),
        ("modernbert", {"mlp_bias": True}, "'mlp_bias' is true; here it must be false"),
        ("modernbert", {"decoder_bias": False}, "'decoder_bias' is false; here it must be true"),
        ("modernbert", {"classifier_activation": "relu"}, "'classifier_activation' must be gelu"),
        ("modernbert", {"hidden_activation": "silu"}, "activation 'silu' is not supported"),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"]}, "'layer_types' is not understood"),
        ("modernbert", {"rope_scaling": {"type": "yarn"}}, "angles of positions that are scaled are not supported"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_theta": "1e4"}}},
            "'global_rope_theta' is '1e4'; it must be a number from 1 to 1e+12",
        ),
    ],
)
def test_switches_that_are_not_supported_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    encoder = tiny(family=family, **SWITCHES[family])
    with pytest.raises(ModelError, match=re.escape(f"here: {message}")):
        read(on_disk(encoder), encoder, **changes)


def test_old_and_new_keys_of_modernbert_mean_the_same() -> None:
    encoder = tiny(family="modernbert", **SWITCHES["modernbert"])
    for unsaid in ({"layer_types": None, "rope_parameters": None}, {"global_attn_every_n_layers": None}):
        assert read(on_disk(encoder), encoder, **unsaid).encoder.config == encoder.config


@pytest.mark.parametrize("said", ["ernie", "bert"])
def test_old_copies_of_ernie_are_named_as_bert(said: str) -> None:
    encoder = tiny(family="ernie", tasks=3)
    tensors = {name.replace("ernie.", "bert."): tensor for name, tensor in on_disk(encoder).items()}
    assembly = read(tensors, encoder, model_type=said)
    assert same(assembly.encoder, encoder)
    assert (assembly.encoder.config, assembly.left_over, assembly.notes) == (encoder.config, [], [])


def test_groups_of_several_layers_are_refused() -> None:
    encoder = tiny(family="albert", layer_groups=1)
    with pytest.raises(ModelError, match="here: 'inner_group_num' is 2; only groups of one layer are supported"):
        read(on_disk(encoder), encoder, inner_group_num=2)
    with pytest.raises(ModelError, match="2 layers cannot be shared in 3 groups"):
        read(on_disk(encoder), encoder, num_hidden_groups=3)


def test_unilm1_spells_the_epsilon_in_full() -> None:
    encoder = tiny()
    assembly = read(on_disk(encoder), encoder, layer_norm_eps=None, layer_norm_epsilon=1e-5)
    assert assembly.encoder.config.norm_epsilon == 1e-5


def test_a_table_of_relative_biases_is_used_though_the_configuration_forgot_it() -> None:
    encoder = tiny(relative_buckets=8)
    assembly = read(on_disk(encoder), encoder, rel_pos_bins=None, max_rel_pos=None)
    assert same(assembly.encoder, encoder)
    assert assembly.notes == ["config.json says 0 relative buckets; the tensors have 8"]


@pytest.mark.parametrize(("buckets", "distance"), [(2, 128), (32, 8), (32, 0)])
def test_impossible_relative_buckets_are_refused(buckets: int, distance: int) -> None:
    encoder = tiny(relative_buckets=buckets)
    with pytest.raises(ModelError, match=f"{buckets} relative buckets up to distance {distance} make no sense"):
        read(on_disk(encoder), encoder, max_rel_pos=distance)
