"""What a family of encoders is: how its files name weights and settings.

A `Rule` ties tensors of the encoder (`inside`) to tensors of a file (`outside`): both sides, joined along their first
dimension, are the same numbers. So one rule says that the fused query-key-value projection is three tensors in a file,
and another that RoBERTa's position table is two rows that no word uses followed by ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from unilmctl.model import ModelConfig
from unilmctl.weights.values import Values


class Turn(NamedTuple):
    """Two functions that undo each other: a file's tensor to the encoder's, and back. Both work on any device."""

    inward: Callable[[Tensor], Tensor]
    outward: Callable[[Tensor], Tensor]


class Rule(NamedTuple):
    """Names of the encoder's tensors and of the file's, joined along the first dimension.

    `turn` is for what a file holds in another order: it is applied to each of the file's tensors.
    """

    inside: tuple[str, ...]
    outside: tuple[str, ...]
    turn: Turn | None = None


TRANSPOSED = Turn(lambda tensor: tensor.T, lambda tensor: tensor.T)

BERT_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "project": "embeddings_project",
}
"""Modules of the embeddings: the encoder's name -> the name in a file, below the prefix."""

BERT_LAYER = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention.norm": ("attention.output.LayerNorm",),
    "inner": ("intermediate.dense",),
    "outer": ("output.dense",),
    "norm": ("output.LayerNorm",),
}
"""Modules of one layer: the encoder's name -> the names in a file."""


def unchanged(values: Values, config: ModelConfig) -> ModelConfig:
    """No settings but BERT's."""
    return config


def no_settings(config: ModelConfig) -> Mapping[str, Any]:
    """No keys in config.json but the common ones."""
    return {}


def no_rules(config: ModelConfig) -> list[Rule]:
    """No tensors but the common ones."""
    return []


@dataclass(frozen=True)
class Family:
    """A family's names. All of them are candidates: those apply whose tensors the encoder has.

    prefix        what the encoder's names begin with, in a model with heads
    architecture  the class in transformers
    dense, norm, bias    the language-model head's modules and its bias per word
    word_copies, bias_copies   names under which files keep second copies of the word embeddings and of `bias`
    layer         a layer's name below the prefix, {} being its number
    bare          what an encoder's names begin with when they lack the prefix
    relative      the table of relative biases, below the prefix (empty: none), and how it lies in a file
    pooler, pair  the sentence-pair head's modules, of which only the first is below the prefix
    defaults      what config.json means by leaving a key out, where that is not what BERT means
    read          settings of its own: config.json's values and what the common ones made -> the configuration
    write         the same settings as config.json's keys
    rules         further rules
    constants     tensors that files hold though they follow from the configuration, below the prefix
    """

    prefix: str
    architecture: str
    dense: str
    norm: str
    bias: str
    word_copies: tuple[str, ...]
    bias_copies: tuple[str, ...] = ()
    embeddings: Mapping[str, str] = field(default_factory=lambda: BERT_EMBEDDINGS)
    layer: str = "encoder.layer.{}"
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: BERT_LAYER)
    bare: tuple[str, ...] = ("embeddings.", "encoder.", "pooler.", "embeddings_project.", "rel_pos_bias.")
    relative: str = ""
    relative_turn: Turn | None = None
    pooler: str = "pooler.dense"
    pair: str = "cls.seq_relationship"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Values, ModelConfig], ModelConfig] = unchanged
    write: Callable[[ModelConfig], Mapping[str, Any]] = no_settings
    rules: Callable[[ModelConfig], list[Rule]] = no_rules
    constants: Mapping[str, Callable[[ModelConfig], Tensor]] = field(default_factory=dict)

    def named(self, name: str) -> str:
        """A name below the prefix in full."""
        return f"{self.prefix}.{name}"


def module(inside: str, *outside: str, turn: Turn | None = None) -> list[Rule]:
    """The rules of a module's weight and bias, one module of ours being one or several of the file's."""
    return [
        Rule((f"{inside}.{kind}",), tuple(f"{name}.{kind}" for name in outside), turn) for kind in ("weight", "bias")
    ]
