"""config.json and `ModelConfig`, in both directions, every value bounded before anything is allocated."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.weights.names import FAMILIES, Tensors, family_of

BOUNDS = {
    "vocab_size": (1, 4_000_000),
    "hidden_size": (1, 65_536),
    "num_hidden_layers": (1, 1_000),
    "num_attention_heads": (1, 1_024),
    "intermediate_size": (1, 1_000_000),
    "max_position_embeddings": (1, 4_000_000),
    "type_vocab_size": (0, 1_000),
    "embedding_size": (1, 65_536),
    "rel_pos_bins": (0, 4_096),
    "max_rel_pos": (0, 1_000_000),
    "pad_token_id": (0, 4_000_000),
}

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
}


def family_name(raw: Mapping[str, Any], tensors: Tensors, where: str, architecture: str | None = None) -> str:
    """Which family's names a checkpoint uses: what the caller says, what config.json says, what the names say."""
    said = architecture or raw.get("model_type")
    if said is not None:
        if not isinstance(said, str) or said not in FAMILIES:
            raise ModelError(f"{where}: models of type '{said}' are not supported", f"supported: {', '.join(FAMILIES)}")
        return said
    for name in ("bert", "roberta", "electra"):
        if any(tensor.removeprefix("module.").startswith(f"{name}.") for tensor in tensors):
            return name
    raise ModelError(
        f"{where}: neither config.json nor the tensors' names tell the architecture",
        f"say it with --architecture {'|'.join(FAMILIES)}",
    )


class _Values:
    """Typed, bounded access to the values of a config.json."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}: '{name}' is missing")
        low, high = BOUNDS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be a whole number from {low} to {high}")
        return value

    def fraction(self, name: str, default: float) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be a number from 0 to 1")
        return float(value)


def model_config(raw: Mapping[str, Any], family: str, where: str) -> ModelConfig:
    """The encoder that a config.json describes; ModelError for anything unsupported, missing or absurd."""
    values = _Values(raw, where)
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{where}: position embeddings of type '{raw['position_embedding_type']}' are not supported")
    activation = raw.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ModelError(f"{where}: activation {activation!r} is not supported", f"supported: {', '.join(ACTIVATIONS)}")
    hidden = values.integer("hidden_size", 256 if family == "electra" else 768)
    embedding = values.integer("embedding_size", 128 if family == "electra" else hidden)
    pad = values.integer("pad_token_id", 1 if "roberta" in family else 0)
    vocabulary = values.integer("vocab_size")
    if pad >= vocabulary:
        raise ModelError(f"{where}: 'pad_token_id' is {pad}, but there are only {vocabulary} tokens")
    epsilon = "layer_norm_epsilon" if "layer_norm_eps" not in raw and "layer_norm_epsilon" in raw else "layer_norm_eps"
    config = ModelConfig(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=values.integer("num_hidden_layers", 12),
        heads=values.integer("num_attention_heads", 4 if family == "electra" else 12),
        feedforward=values.integer("intermediate_size", 1024 if family == "electra" else 3072),
        positions=values.integer("max_position_embeddings", 512),
        segments=values.integer("type_vocab_size", 2),
        embedding=None if embedding == hidden else embedding,
        family=family,
        activation=ACTIVATIONS[activation],
        norm_epsilon=values.fraction(epsilon, 1e-12),
        dropout=values.fraction("hidden_dropout_prob", 0.1),
        attention_dropout=values.fraction("attention_probs_dropout_prob", 0.1),
        relative_buckets=values.integer("rel_pos_bins", 0),
        relative_distance=values.integer("max_rel_pos", 128),
        initializer_range=values.fraction("initializer_range", 0.02),
        pad=pad,
    )
    return _without_reserved(config, where)


def _without_reserved(config: ModelConfig, where: str) -> ModelConfig:
    """RoBERTa's config.json counts the rows before position 0."""
    if config.positions <= config.reserved_positions:
        raise ModelError(f"{where}: 'max_position_embeddings' is {config.positions}, which leaves no position")
    return replace(config, positions=config.positions - config.reserved_positions)


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json of an encoder, as transformers reads it, plus UniLM 2's two keys where they matter."""
    found: dict[str, Any] = {
        "architectures": [family_of(config.family).architecture],
        "model_type": config.family,
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feedforward,
        "max_position_embeddings": config.positions + config.reserved_positions,
        "type_vocab_size": config.segments,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad,
        "tie_word_embeddings": True,
    }
    if config.family == "electra" or config.embedding is not None:
        found["embedding_size"] = config.embedding_size
    if config.relative_buckets:
        found |= {"rel_pos_bins": config.relative_buckets, "max_rel_pos": config.relative_distance}
    return found
