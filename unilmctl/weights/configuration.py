"""config.json and `ModelConfig`, in both directions; what only one family says is in the family's own module."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.weights.families import FAMILIES, family_of
from unilmctl.weights.heads import INNER, read_heads, written_heads
from unilmctl.weights.names import Tensors
from unilmctl.weights.values import Values

OLD_KEYS = {"use_task_id": "ernie", "use_relative_position": "nezha"}
"""Settings of families whose files, from before transformers knew them, call themselves BERT or nothing."""


def family_name(raw: Mapping[str, Any], tensors: Tensors, where: str, architecture: str | None = None) -> str:
    """Which family's names a checkpoint uses: what the caller says, what config.json says, what the names say."""
    said = architecture or raw.get("model_type")
    for key, meant in OLD_KEYS.items():
        if said in (None, "bert") and raw.get(key) is True:
            return meant
    if said is None and "num_hidden_groups" in raw:
        return "albert"  # as Google says it
    if said is not None:
        if not isinstance(said, str) or said not in FAMILIES:
            raise ModelError(f"{where}: models of type '{said}' are not supported", f"supported: {', '.join(FAMILIES)}")
        return said
    for name, family in FAMILIES.items():
        if any(tensor.removeprefix("module.").startswith(f"{family.prefix}.") for tensor in tensors):
            return name
    raise ModelError(
        f"{where}: neither config.json nor the tensors' names tell the architecture",
        f"say it with --architecture {'|'.join(FAMILIES)}",
    )


def model_config(raw: Mapping[str, Any], family: str, where: str) -> ModelConfig:
    """The encoder that a config.json describes; ModelError for anything unsupported, missing or absurd."""
    values = Values(raw, where, family_of(family).defaults)
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{where}: position embeddings of type '{raw['position_embedding_type']}' are not supported")
    hidden = values.integer("hidden_size", 768)
    embedding = values.integer("embedding_size", hidden)
    pad = values.integer("pad_token_id", 0)
    vocabulary = values.integer("vocab_size")
    if pad >= vocabulary:
        raise ModelError(f"{where}: 'pad_token_id' is {pad}, but there are only {vocabulary} tokens")
    epsilon = "layer_norm_epsilon" if "layer_norm_eps" not in raw and "layer_norm_epsilon" in raw else "layer_norm_eps"
    config = ModelConfig(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=values.integer("num_hidden_layers", 12),
        heads=values.integer("num_attention_heads", 12),
        feedforward=values.integer("intermediate_size", 3072),
        positions=values.integer("max_position_embeddings", 512),
        segments=values.integer("type_vocab_size", 2),
        embedding=None if embedding == hidden else embedding,
        family=family,
        activation=values.activation("hidden_act", "gelu"),
        norm_epsilon=values.fraction(epsilon, 1e-12),
        dropout=values.fraction("hidden_dropout_prob", 0.1),
        attention_dropout=values.fraction("attention_probs_dropout_prob", 0.1),
        initializer_range=values.fraction("initializer_range", 0.02),
        pad=pad,
        inner_positions=values.integer(INNER, 0),
    ).with_heads(*read_heads(values.raw, where))
    return _without_reserved(family_of(family).read(values, config), where)


def _without_reserved(config: ModelConfig, where: str) -> ModelConfig:
    """RoBERTa's config.json counts the rows before position 0."""
    if config.positions <= config.reserved_positions:
        raise ModelError(f"{where}: 'max_position_embeddings' is {config.positions}, which leaves no position")
    return replace(config, positions=config.positions - config.reserved_positions)


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json of an encoder, as transformers reads it, plus UniLM 2's two keys where they matter."""
    family = family_of(config.family)
    detects = config.family == "electra" and any(head.kind == "replaced" for head in config.heads_extra)
    found: dict[str, Any] = {
        "architectures": ["ElectraForPreTraining" if detects else family.architecture],
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
    if "embedding_size" in family.defaults or config.embedding is not None:
        found["embedding_size"] = config.embedding_size
    found |= {**family.write(config), **written_heads(config)}
    return {name: value for name, value in found.items() if value is not None}
