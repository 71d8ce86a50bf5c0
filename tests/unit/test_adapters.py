"""Adapters and averages: what is trained, what is shown, what peft reads."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_training import feed_of, options_of, tiny_encoder, weights

from unilmctl.model import Encoder, HeadConfig
from unilmctl.model.adapters import Adapting, adapt, adapters, merged
from unilmctl.training import build_optimizer, train
from unilmctl.training.averages import Averages, hidden_tensors, load_hidden, shown
from unilmctl.weights import ModelCard, save_model
from unilmctl.weights.peft import save_adapter

ALL = ("qkv", "output", "inner", "outer")


def how(*targets: str, rank: int = 2, dropout: float = 0.0) -> Adapting:
    return Adapting(rank, 8.0, dropout, targets or ALL)


FUSED: dict[str, Any] = {
    **{"family": "modernbert", "position": "rotary", "segments": 0, "prenorm": True, "gated": True},
    **{"linear_bias": False, "norm_bias": False},
}
"""A family whose files hold queries, keys and values as one."""

SHARED: dict[str, Any] = {"family": "albert", "layer_groups": 1}
OTHERWISE: dict[str, Any] = {"family": "mpnet", "segments": 0, "relative_buckets": 32}
"""Both layers are one; layers that are named otherwise than BERT's."""


def learnt(adapting: Adapting, *, steps: int = 4, **switches: Any) -> Encoder:
    """A tiny encoder whose adapters have learnt something."""
    encoder, options = tiny_encoder(**switches), options_of(steps=steps)
    adapt(encoder, adapting, seed=3)
    list(train(encoder, build_optimizer(encoder, options), feed_of(), options))
    return encoder.eval()


def hidden_of(encoder: Encoder) -> torch.Tensor:
    batch = feed_of().batch(0, feed_of().order(0)[0])
    with torch.no_grad():
        return encoder.eval()(batch.ids, batch.positions, batch.segments, batch.slots)[0]


def test_new_adapters_change_nothing() -> None:
    encoder = tiny_encoder()
    before = hidden_of(encoder)
    adapt(encoder, how(), seed=1)
    assert torch.equal(hidden_of(encoder), before)


@pytest.mark.parametrize("targets", [("qkv",), ("output", "outer"), ALL])
def test_adapters_alone_are_trained(targets: tuple[str, ...]) -> None:
    before, after = weights(tiny_encoder()), weights(learnt(how(*targets)))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    added = after.keys() - before.keys()
    assert {name.rsplit(".", 1)[1] for name in added} == {"up", "down"}
    assert len(added) == 2 * 2 * len(targets)
    assert all(after[name].abs().sum() > 0 for name in added)


def test_heads_are_trained_beside_adapters() -> None:
    heads = (HeadConfig("topic", "class", 3), HeadConfig("tag", "token", 4), HeadConfig("other", "span"))
    encoder = Encoder(tiny_encoder().config.with_heads(*heads))
    encoder.initialize(torch.Generator().manual_seed(1))
    adapt(encoder, how("inner"), seed=3, heads=["topic", "tag"])
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    inner = {f"layers.{layer}.inner.{name}" for layer in range(2) for name in ("down", "up")}
    own = {f"extra.{head}.dense.{name}" for head in ("topic", "tag") for name in ("weight", "bias")}
    assert trained == inner | own | {"pooler.weight", "pooler.bias"}


def test_what_is_shown_computes_the_same_without_adapters() -> None:
    encoder = learnt(how())
    plain = shown(encoder, None)
    assert not adapters(plain)
    assert plain.state_dict().keys() == tiny_encoder().state_dict().keys()
    torch.testing.assert_close(hidden_of(plain), hidden_of(encoder), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(hidden_of(plain), hidden_of(tiny_encoder()), atol=1e-3)


def test_a_merged_weight_is_the_sum() -> None:
    encoder = learnt(how("qkv"))
    state = encoder.state_dict()
    name = "layers.1.attention.qkv"
    found = merged(encoder, state)[f"{name}.weight"]
    for part in range(3):
        rows = slice(16 * part, 16 * part + 16)
        low = state[f"{name}.down"][2 * part : 2 * part + 2]
        torch.testing.assert_close(found[rows], state[f"{name}.weight"][rows] + 4.0 * state[f"{name}.up"][part] @ low)


def test_dropout_of_adapters_ends_with_training() -> None:
    encoder = learnt(how(dropout=0.5))
    assert torch.equal(hidden_of(encoder), hidden_of(encoder))
    batch = feed_of().batch(0, feed_of().order(0)[0])
    encoder.train()
    runs = [encoder(batch.ids, batch.positions, batch.segments, batch.slots)[0] for _ in range(2)]
    assert not torch.equal(*runs)


def test_an_encoder_without_averages_and_adapters_is_shown_as_it_is() -> None:
    encoder = tiny_encoder()
    assert shown(encoder, None) is encoder
    assert hidden_tensors(encoder, None) == {}


@pytest.mark.parametrize(("switches", "count"), [({}, 6), (FUSED, 4), (SHARED, 3), (OTHERWISE, 6)])
def test_peft_finds_its_names(switches: dict[str, Any], count: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    encoder, adapting = learnt(how(), **switches), replace(how(), base="base")
    save_model(tmp_path / "base", tiny_encoder(**switches), ModelCard(), None)
    save_adapter(tmp_path, encoder.config, adapting, encoder.state_dict())
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "base")
    linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    adapted = {name for name in linears if re.fullmatch(config["target_modules"], name)}
    assert len(adapted) == 2 * count
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert tensors.keys() == {f"base_model.model.{name}.lora_{side}.weight" for name in adapted for side in "AB"}
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 8.0, "base")
    with torch.no_grad():  # as peft merges
        for name in adapted:
            low, high = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            rank = config["rank_pattern"].get(re.sub(r".*\d+\.", "", name), config["r"])
            alpha = config["alpha_pattern"].get(re.sub(r".*\d+\.", "", name), config["lora_alpha"])
            assert low.shape[0] == high.shape[1] == rank
            linears[name].weight += alpha / rank * high @ low
    merged_model = shown(encoder, None)
    save_model(tmp_path / "merged", merged_model, ModelCard(), None)
    expected = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "merged").state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("switches", [{}, FUSED])
def test_peft_itself_reads_them(switches: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    encoder, ids = learnt(how(), **switches), torch.arange(5, 24)[None]
    save_model(tmp_path / "base", tiny_encoder(**switches), ModelCard(), None)
    save_model(tmp_path / "merged", shown(encoder, None), ModelCard(), None)
    save_adapter(tmp_path, encoder.config, how(), encoder.state_dict())
    base, whole = (transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / name) for name in ("base", "merged"))
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(ids).logits
        torch.testing.assert_close(adapted, whole.eval()(ids).logits, atol=1e-5, rtol=1e-5)


def test_one_target_of_two_alike_names_is_not_the_other(tmp_path: Path) -> None:
    save_adapter(tmp_path, tiny_encoder().config, how("outer"), learnt(how("outer")).state_dict())
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    pattern = config["target_modules"]
    assert re.fullmatch(pattern, "bert.encoder.layer.0.output.dense")
    assert not re.fullmatch(pattern, "bert.encoder.layer.0.attention.output.dense")


@given(st.floats(0.0, 0.9999), st.integers(1, 12))
@settings(deadline=None, max_examples=20)
def test_averages_are_those_of_the_formula(decay: float, steps: int) -> None:
    encoder = tiny_encoder()
    averages, name = Averages(encoder, decay), "head.bias"
    expected = encoder.head.bias.detach().double().clone()
    for step in range(1, steps + 1):
        with torch.no_grad():
            encoder.head.bias.add_(step)
        averages.update(encoder, step)
        keep = min(decay, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * encoder.head.bias.detach().double()
    torch.testing.assert_close(averages.weights[name].double(), expected, atol=1e-5, rtol=1e-5)


def test_averages_are_shown_and_the_weights_stay() -> None:
    encoder, options = tiny_encoder(), options_of()
    averages = Averages(encoder, 0.5)
    for step in train(encoder, build_optimizer(encoder, options), feed_of(), options):
        averages.update(encoder, step.number)
    before = weights(encoder)
    state = shown(encoder, averages).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in averages.weights.items())
    assert not torch.equal(state["head.bias"], before["head.bias"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("adapting", [None, how("qkv")])
def test_what_is_hidden_comes_back(adapting: Adapting | None) -> None:
    encoder = tiny_encoder() if adapting is None else learnt(adapting)
    averages = Averages(encoder, 0.5)
    with torch.no_grad():
        for tensor in averages.weights.values():
            tensor.add_(1)
    tensors = {**hidden_tensors(encoder, averages), "exp_avg.head.bias": torch.zeros(1)}
    other = tiny_encoder(seed=9)
    if adapting is not None:
        adapt(other, adapting, seed=8)
    found = Averages(other, 0.5)
    load_hidden(other, found, tensors)
    assert list(tensors) == ["exp_avg.head.bias"]
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in encoder.state_dict().items())
    assert all(torch.equal(tensor, found.weights[name]) for name, tensor in averages.weights.items())
