"""ALBERT: one layer gone through many times, and embeddings narrower than the layers.

(Lan et al. 2019, arXiv 1909.11942.)
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.weights.families.family import BERT_EMBEDDINGS, Family
from unilmctl.weights.values import Values


def _groups(values: Values, config: ModelConfig) -> ModelConfig:
    """How many layers have weights of their own. A group of several layers has never been released, and is refused."""
    inner = values.integer("inner_group_num", 1)
    if inner != 1:
        raise ModelError(f"{values.where}: 'inner_group_num' is {inner}; only groups of one layer are supported")
    groups = values.integer("num_hidden_groups", 1)
    return replace(config, layer_groups=0 if groups == config.layers else groups)


def _written_groups(config: ModelConfig) -> Mapping[str, Any]:
    return {"num_hidden_groups": config.distinct_layers, "inner_group_num": 1}


ALBERT = Family(
    "albert",
    "AlbertForMaskedLM",
    dense="predictions.dense",
    norm="predictions.LayerNorm",
    bias="predictions.bias",
    word_copies=("predictions.decoder.weight",),
    bias_copies=("predictions.decoder.bias",),
    embeddings={**BERT_EMBEDDINGS, "project": "encoder.embedding_hidden_mapping_in"},
    layer="encoder.albert_layer_groups.{}.albert_layers.0",
    modules={
        "attention.qkv": ("attention.query", "attention.key", "attention.value"),
        "attention.output": ("attention.dense",),
        "attention.norm": ("attention.LayerNorm",),
        "inner": ("ffn",),
        "outer": ("ffn_output",),
        "norm": ("full_layer_layer_norm",),
    },
    pooler="pooler",
    pair="sop_classifier.classifier",
    defaults={
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    read=_groups,
    write=_written_groups,
)
