"""ModernBERT: norms before each half, no biases, GeGLU, positions by turning; two layers in three see a window only.

(Warner et al. 2024, arXiv 2412.13663.) Old files say `global_attn_every_n_layers`, `global_rope_theta` and
`local_rope_theta`, new ones `layer_types` and `rope_parameters`; both are written.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.weights.families.family import Family, Rule, module
from unilmctl.weights.values import Values

FULL, SLIDING = "full_attention", "sliding_attention"


def _modern(values: Values, config: ModelConfig) -> ModelConfig:
    bias = values.flag("attention_bias", default=False)
    for name, only in (("mlp_bias", bias), ("classifier_bias", bias), ("decoder_bias", True)):
        if values.flag(name, default=only) != only:
            raise ModelError(
                f"{values.where}: '{name}' is {str(not only).lower()}; here it must be {str(only).lower()}"
            )
    if values.activation("classifier_activation", "gelu") != "gelu":
        raise ModelError(f"{values.where}: 'classifier_activation' must be gelu")
    return replace(
        config,
        position="rotary",
        prenorm=True,
        gated=True,
        linear_bias=bias,
        norm_bias=values.flag("norm_bias", default=False),
        activation=values.activation("hidden_activation", "gelu"),
        norm_epsilon=values.fraction("norm_eps", 1e-5),
        dropout=values.fraction("mlp_dropout", 0.0),
        attention_dropout=values.fraction("attention_dropout", 0.0),
        window=values.integer("local_attention", 128) // 2,
        global_every=_global_every(values, config.layers),
        rotary_base=_base(values, FULL, "global_rope_theta", 160_000.0),
        local_base=_base(values, SLIDING, "local_rope_theta", 10_000.0),
    )


def _global_every(values: Values, layers: int) -> int:
    """Every how many layers one sees everything; ModelError when it is not so regular."""
    types = values.raw.get("layer_types")
    if types is None:
        return values.integer("global_attn_every_n_layers", 3)
    for every in range(1, layers + 1):
        if types == _layer_types(layers, every):
            return every
    raise ModelError(
        f"{values.where}: 'layer_types' is not understood",
        f"'{FULL}' at regular distances from the first of the {layers} layers on, '{SLIDING}' between, is supported",
    )


def _layer_types(layers: int, every: int) -> list[str]:
    return [SLIDING if layer % every else FULL for layer in range(layers)]


def _base(values: Values, kind: str, old: str, default: float) -> float:
    """What angles grow by in layers of this kind."""
    parameters = values.raw.get("rope_parameters")
    found = parameters.get(kind) if isinstance(parameters, dict) else None
    found = found if isinstance(found, dict) else {}
    if found.get("rope_type", "default") != "default" or values.raw.get("rope_scaling") is not None:
        raise ModelError(f"{values.where}: angles of positions that are scaled are not supported")
    return Values({old: found.get("rope_theta", values.raw.get(old))}, values.where, {}).number(old, default)


def _written_modern(config: ModelConfig) -> Mapping[str, Any]:
    common = ("hidden_act", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size")
    bases = {FULL: config.rotary_base, SLIDING: config.local_base}
    return {
        **dict.fromkeys(common),  # not said: this family has names of its own for them
        "hidden_activation": config.activation,
        "classifier_activation": "gelu",
        "norm_eps": config.norm_epsilon,
        "norm_bias": config.norm_bias,
        "attention_bias": config.linear_bias,
        "mlp_bias": config.linear_bias,
        "classifier_bias": config.linear_bias,
        "decoder_bias": True,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "local_attention": 2 * config.window,
        "global_attn_every_n_layers": config.global_every,
        "layer_types": _layer_types(config.layers, config.global_every),
        "global_rope_theta": config.rotary_base,
        "local_rope_theta": config.local_base,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }


def _last_norm(config: ModelConfig) -> list[Rule]:
    return module("norm", "model.final_norm")


MODERNBERT = Family(
    "model",
    "ModernBertForMaskedLM",
    dense="head.dense",
    norm="head.norm",
    bias="decoder.bias",
    word_copies=("decoder.weight",),
    embeddings={"word": "embeddings.tok_embeddings", "norm": "embeddings.norm"},
    layer="layers.{}",
    modules={
        "attention.qkv": ("attn.Wqkv",),
        "attention.output": ("attn.Wo",),
        "attention.norm": ("attn_norm",),
        "inner": ("mlp.Wi",),
        "outer": ("mlp.Wo",),
        "norm": ("mlp_norm",),
    },
    bare=("embeddings.", "layers.", "final_norm."),
    defaults={
        "num_hidden_layers": 22,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "type_vocab_size": 0,
        "pad_token_id": 50283,
    },
    read=_modern,
    write=_written_modern,
    rules=_last_norm,
)
