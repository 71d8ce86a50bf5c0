"""Patterns over parameter names: what they freeze, and what is said when they mean nothing."""

import pytest
import torch
from tiny_training import feed_of, options_of, tiny_encoder, weights

from unilmctl.errors import RecipeError
from unilmctl.training import build_optimizer, train
from unilmctl.training.freezing import frozen

NAMES = [name for name, _ in tiny_encoder().named_parameters()]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("embeddings", lambda name: name.startswith("embeddings.")),
        ("layers.0-1", lambda name: name.startswith("layers.")),
        ("layers.1", lambda name: name.startswith("layers.1.")),
        ("*.norm", lambda name: ".norm." in name),
        ("*.bias", lambda name: name.endswith(".bias")),
        ("layers.0-1.attention", lambda name: ".attention." in name),
        ("layers.?.attention.qkv.weight", lambda name: name.endswith("qkv.weight")),
    ],
)
def test_a_pattern_means_parts_of_the_model(pattern: str, expected: object) -> None:
    assert frozen(NAMES, [pattern]) == {name for name in NAMES if expected(name)}  # type: ignore[operator]


def test_patterns_add_up() -> None:
    assert frozen(NAMES, ["head", "layers.0"]) == {n for n in NAMES if n.startswith(("head.", "layers.0."))}
    assert frozen(NAMES, []) == set()


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("embedings", "'embedings' is no part of the model", "did you mean embeddings"),
        ("layers.0-3", "'layers.2' of 'layers.0-3' is no part of the model", "did you mean layers"),
        ("layers.1-0", "'layers.1-0' is no part of the model", "did you mean layers.1"),
        ("layer", "'layer' is no part of the model", "did you mean layers"),
        ("quux", "'quux' is no part of the model", "patterns are such as embeddings, layers.0-5, *.norm"),
    ],
)
def test_a_pattern_that_means_nothing_is_said(pattern: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        frozen(NAMES, ["head", pattern])
    assert caught.value.message == f"finetune.freeze: {message}"
    assert str(caught.value.hint).startswith(hint)


def test_a_model_without_anything_to_train_is_said() -> None:
    with pytest.raises(RecipeError, match="nothing is left to train"):
        frozen(NAMES, ["*"])


def test_what_is_frozen_does_not_change() -> None:
    encoder, options = tiny_encoder(), options_of(freeze=("layers.0", "*.norm"))
    before = weights(encoder)
    list(train(encoder, build_optimizer(encoder, options), feed_of(), options))
    changed = {name for name, tensor in weights(encoder).items() if not torch.equal(tensor, before[name])}
    assert changed == set(NAMES) - frozen(NAMES, ["layers.0", "*.norm"])
