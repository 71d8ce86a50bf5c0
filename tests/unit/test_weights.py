"""Names in both directions, config.json in both directions, model folders."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_checkpoints import SWITCHES, on_disk, same, tiny, write_config, write_vocabulary

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ModelCard, load_model, save_model
from unilmctl.weights.assembling import assemble
from unilmctl.weights.configuration import hugging_face_config, model_config
from unilmctl.weights.families import FAMILIES
from unilmctl.weights.folder import default_segments
from unilmctl.weights.names import from_disk, rules, shapes_on_disk, to_disk
from unilmctl.weights.values import BOUNDS


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    heads = draw(st.integers(1, 3))
    layers, family = draw(st.integers(1, 3)), draw(st.sampled_from(list(FAMILIES)))
    hidden = heads * draw(st.integers(1, 3)) * (2 if "position" in SWITCHES.get(family, {}) else 1)
    has, switches = FAMILIES[family].embeddings, dict(SWITCHES.get(family, {}))
    if family == "modernbert":
        switches["global_every"] = draw(st.integers(1, layers))
        switches |= {name: draw(st.booleans()) for name in ("linear_bias", "norm_bias")}
    config = ModelConfig(
        vocabulary=draw(st.integers(6, 12)),
        hidden=hidden,
        layers=layers,
        heads=heads,
        feedforward=draw(st.integers(1, 7)),
        positions=draw(st.integers(1, 9)),
        segments=draw(st.integers(0, 6)) if "segment" in has else 0,
        embedding=draw(st.sampled_from([None, 5])) if "project" in has and hidden != 5 else None,
        family=family,
        relative_buckets=draw(st.sampled_from([0, 8])) if FAMILIES[family].relative else 0,
        tasks=draw(st.integers(0, 3)) if "task" in has else 0,
        layer_groups=draw(st.integers(0, layers - 1)) if family == "albert" else 0,
        pooler=draw(st.booleans()),
        pair_head=draw(st.booleans()),
    )
    return replace(config, **switches)


@given(configs())
@settings(deadline=None, max_examples=50)
def test_names_translate_both_ways_without_leftovers(config: ModelConfig) -> None:
    encoder = tiny(**vars(config))
    state, table = encoder.state_dict(), rules(config)
    outside = to_disk(table, state)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    assert {name: tensor.shape for name, tensor in outside.items()} == shapes_on_disk(table, shapes)
    assert sum(tensor.numel() for tensor in outside.values()) == sum(tensor.numel() for tensor in state.values())
    inside = from_disk(table, outside, shapes)
    assert inside.keys() == state.keys()
    assert all(torch.equal(inside[name], state[name]) for name in state)


@given(configs())
@settings(deadline=None, max_examples=50)
def test_config_json_translates_both_ways(config: ModelConfig) -> None:
    again = model_config(json.loads(json.dumps(hugging_face_config(config))), config.family, "here")
    assert replace(again, pooler=config.pooler, pair_head=config.pair_head) == config


def test_the_names_of_bert_are_the_usual_ones() -> None:
    names = set(on_disk(tiny(layers=1, pair_head=True, relative_buckets=8)))
    layer = "bert.encoder.layer.0"
    modules = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    modules += [f"{layer}.attention.output.dense", f"{layer}.attention.output.LayerNorm", f"{layer}.intermediate.dense"]
    modules += [f"{layer}.output.dense", f"{layer}.output.LayerNorm", "bert.embeddings.LayerNorm", "bert.pooler.dense"]
    modules += ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.seq_relationship"]
    tables = [f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    expected = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    assert names == expected | {*tables, "cls.predictions.bias", "bert.rel_pos_bias.weight"}


def test_queries_keys_and_values_are_thirds_of_the_fused_projection() -> None:
    encoder = tiny()
    fused = encoder.state_dict()["layers.1.attention.qkv.weight"]
    found = on_disk(encoder)
    for third, name in enumerate(("query", "key", "value")):
        part = found[f"bert.encoder.layer.1.attention.self.{name}.weight"]
        assert torch.equal(part, fused[8 * third : 8 * third + 8])


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_two_reserved_rows_stand_before_position_zero(family: str, tmp_path: Path) -> None:
    encoder = tiny(family=family, pad=1, segments=1)
    table = on_disk(encoder)["roberta.embeddings.position_embeddings.weight"]
    assert table.shape == (12, 8)
    assert torch.equal(table[2], encoder.embeddings.position.weight[0])
    save_model(tmp_path, encoder, ModelCard(target_segment=0), None)
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 12
    again = load_model(tmp_path).encoder
    assert again.config.positions == 10
    assert same(again, encoder)


def test_a_folder_gives_back_what_was_saved(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    encoder, tokenizer = tiny(relative_buckets=8, pair_head=True), Tokenizer.load(tmp_path)
    card = ModelCard("masked", max_source=20, max_target=8, head_trained=False, generate={"beam": 3})
    save_model(tmp_path / "model", encoder, card, tokenizer)
    loaded = load_model(tmp_path / "model")
    assert loaded.card == card
    assert loaded.encoder.config == encoder.config
    assert same(loaded.encoder, encoder)
    assert not loaded.encoder.training
    assert all(parameter.requires_grad for parameter in loaded.encoder.parameters())
    assert Tokenizer.load(tmp_path / "model").fingerprint() == tokenizer.fingerprint()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (2, 3, 0)


def test_weights_are_readable_to_whoever_may_read_the_configuration(tmp_path: Path) -> None:
    save_model(tmp_path, tiny(), ModelCard(), None)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def plain_folder(folder: Path, encoder: Any, **config: Any) -> Path:
    save_file(on_disk(encoder), folder / "model.safetensors")
    write_config(folder, encoder.config, **config)
    return folder


@pytest.mark.parametrize(
    ("segments", "config", "expected"),
    [
        (2, {}, (0, 1)),
        (1, {}, (0, 0)),
        (6, {}, (4, 5)),
        (6, {"source_type_id": 0, "target_type_id": 5}, (0, 5)),
        (2, {"source_type_id": 1, "target_type_id": 1}, (1, 1)),
    ],
)
def test_segments_of_a_plain_folder(
    segments: int, config: dict[str, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    card = load_model(plain_folder(tmp_path, tiny(segments=segments), **config)).card
    assert (card.source_segment, card.target_segment) == expected
    assert (card.objective, card.max_source, card.max_target, card.head_trained) == ("pseudo", None, None, True)


def test_an_encoder_without_segments_gets_segment_zero() -> None:
    assert default_segments(0) == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    encoder = tiny()
    save_file({name: tensor.to(dtype) for name, tensor in on_disk(encoder).items()}, tmp_path / "model.safetensors")
    write_config(tmp_path, encoder.config)
    found = load_model(tmp_path).encoder.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert all(torch.equal(found[name], tensor.to(dtype).float()) for name, tensor in encoder.state_dict().items())


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert caught.value.exit_code == 5
    return caught.value


def test_refused_folders_say_why(tmp_path: Path) -> None:
    assert str(refusal(tmp_path / "nowhere")) == f"{tmp_path / 'nowhere'}: no such model folder"
    error = refusal(tmp_path)
    assert str(error) == f"{tmp_path}: 'config.json' is missing"
    assert error.hint == "make a model folder of it: unilmctl convert"
    write_config(tmp_path, tiny().config)
    assert str(refusal(tmp_path)) == f"{tmp_path}: 'model.safetensors' is missing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 16},
            "'bert.embeddings.word_embeddings.weight' has shape [27, 8], config.json asks for [27, 16]",
        ),
        (
            {"vocab_size": 28},
            "'bert.embeddings.word_embeddings.weight' has shape [27, 8], config.json asks for [28, 8]",
        ),
        ({"num_hidden_layers": 3}, "'bert.encoder.layer.2.attention.self.query.weight' / "),
        ({"num_hidden_layers": 1}, "'bert.encoder.layer.1.attention.output.LayerNorm.bias' has no place"),
        ({"rel_pos_bins": 32}, "config.json has relative positions, but 'bert.rel_pos_bias.weight' is not there"),
        ({"model_type": "t5"}, "models of type 't5' are not supported"),
        ({"hidden_act": "swish"}, "activation 'swish' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position embeddings of type 'relative_key' are not supported"),
        ({"num_attention_heads": 3}, "hidden size 8 is not a multiple of 3 attention heads"),
        ({"vocab_size": None}, "'vocab_size' is missing"),
        ({"pad_token_id": 27}, "'pad_token_id' is 27, but there are only 27 tokens"),
        ({"source_type_id": 2}, "the source segment is 2, but the model has 2 segments"),
    ],
)
def test_a_configuration_of_another_model_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in str(refusal(plain_folder(tmp_path, tiny(), **changes)))


READ_BY = {
    "num_hidden_groups": "albert",
    "inner_group_num": "albert",
    "relative_attention_num_buckets": "mpnet",
    "task_type_vocab_size": "ernie",
    "max_relative_position": "nezha",
    "local_attention": "modernbert",
    "global_attn_every_n_layers": "modernbert",
}
"""The family that has a key; BERT has the others."""


@pytest.mark.parametrize("name", list(BOUNDS))
@pytest.mark.parametrize("value", [10**9, -1, 2.5, "12", True, [1]])
def test_every_size_is_bounded_before_anything_is_allocated(name: str, value: Any) -> None:
    raw = {**hugging_face_config(tiny().config), "use_task_id": True, name: value}
    with pytest.raises(ModelError, match=f"'{name}' is .*; it must be a whole number from"):
        model_config(raw, READ_BY.get(name, "bert"), "config.json")


@pytest.mark.parametrize("value", [2, -0.1, "0.1", float("nan"), True])
def test_rates_are_bounded(value: Any) -> None:
    raw = {**hugging_face_config(tiny().config), "hidden_dropout_prob": value}
    with pytest.raises(ModelError, match="'hidden_dropout_prob' is .*; it must be a number from 0 to 1"):
        model_config(raw, "bert", "config.json")


def test_tables_that_were_resized_without_the_configuration_are_believed() -> None:
    encoder = tiny(positions=10, segments=6)
    raw = {**hugging_face_config(encoder.config), "max_position_embeddings": 4, "type_vocab_size": 2}
    assembly = assemble(on_disk(encoder), raw, "here")
    assert same(assembly.encoder, encoder)
    assert assembly.notes == [
        "config.json says 4 positions; the tensors have 10",
        "config.json says 2 segments; the tensors have 6",
    ]


def test_a_tensor_that_is_no_table_of_floats_is_refused(tmp_path: Path) -> None:
    tensors = on_disk(tiny())
    tensors["bert.pooler.dense.weight"] = torch.zeros(8, 8, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    write_config(tmp_path, tiny().config)
    assert "'bert.pooler.dense.weight' is torch.int8, not a table of floats" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ('{"objective": 3}', "'objective' cannot be 3"),
        ('{"source_segment": -1}', "'source_segment' cannot be -1"),
        ('{"max_source": true}', "'max_source' cannot be True"),
        ('{"truncate": "middle"}', "'truncate' cannot be 'middle'"),
        ('{"separator_in": 1}', "'separator_in' cannot be 1"),
        ('{"fills": ["partial"]}', "'fills' cannot be ['partial']"),
        ('{"fills": {"partial": [0]}}', "'fills' cannot be {'partial': [0]}"),
        ('{"generate": []}', "'generate' cannot be []"),
        ('{"colour": 1}', "unknown key 'colour'"),
        ("[1]", "holds no JSON object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"target_segment": 2}', "the target segment is 2, but the model has 2 segments"),
    ],
)
def test_broken_cards_are_refused(card: str, message: str, tmp_path: Path) -> None:
    plain_folder(tmp_path, tiny())
    (tmp_path / "unilmctl.json").write_text(card)
    assert message in str(refusal(tmp_path))


def test_a_missing_head_is_initialised_and_never_silent(tmp_path: Path) -> None:
    encoder = tiny()
    tensors = {name: tensor for name, tensor in on_disk(encoder).items() if not name.startswith("cls.")}
    first, second = (assemble(dict(tensors), hugging_face_config(encoder.config), "here") for _ in range(2))
    assert first.head == "missing"
    assert {one.name for one in first.missing} == {
        "head.dense.weight",
        "head.dense.bias",
        "head.norm.weight",
        "head.norm.bias",
        "head.bias",
    }
    assert {one.name: one.initialised for one in first.missing}["head.norm.weight"] == "1"
    assert same(first.encoder, second.encoder)
    save_file(tensors, tmp_path / "model.safetensors")
    write_config(tmp_path, encoder.config)
    assert not load_model(tmp_path).card.head_trained


def test_a_head_that_no_step_has_moved_is_called_untrained() -> None:
    encoder = tiny()
    tensors = on_disk(encoder)
    tensors["cls.predictions.transform.LayerNorm.weight"].fill_(1)
    tensors["cls.predictions.transform.LayerNorm.bias"].zero_()
    assert assemble(dict(tensors), hugging_face_config(encoder.config), "here").head == "trained"
    tensors["cls.predictions.bias"].zero_()
    assembly = assemble(dict(tensors), hugging_face_config(encoder.config), "here")
    assert (assembly.head, assembly.missing) == ("untrained", [])


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    encoder = tiny()
    loaded = load_model(plain_folder(tmp_path, encoder)).encoder
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * len(content))
    assert same(loaded, encoder)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "a", tiny(), ModelCard(), None)
    save_model(tmp_path / "b", load_model(tmp_path / "a").encoder, ModelCard(), None)
    for name in ("config.json", "model.safetensors", "unilmctl.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert load_file(tmp_path / "a" / "model.safetensors").keys() == on_disk(tiny()).keys()
