"""MPNet: BERT with T5's relative positions and without segments; positions and special tokens as in RoBERTa.

(Song et al. 2020, arXiv 2004.09297.)
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.model import ModelConfig
from unilmctl.weights.families.family import BERT_EMBEDDINGS, BERT_LAYER, TRANSPOSED, Family
from unilmctl.weights.values import Values

FURTHEST = 128
"""Distance from which on all share a bucket; no config.json says it."""


def _buckets(values: Values, config: ModelConfig) -> ModelConfig:
    buckets = values.integer("relative_attention_num_buckets", 32)
    return replace(config, relative_buckets=buckets, relative_distance=FURTHEST)


def _written_buckets(config: ModelConfig) -> Mapping[str, Any]:
    return {"relative_attention_num_buckets": config.relative_buckets}


MPNET = Family(
    "mpnet",
    "MPNetForMaskedLM",
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    bias="lm_head.bias",
    word_copies=("lm_head.decoder.weight",),
    bias_copies=("lm_head.decoder.bias",),
    embeddings={ours: theirs for ours, theirs in BERT_EMBEDDINGS.items() if ours not in ("segment", "project")},
    modules={
        **BERT_LAYER,
        "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.output": ("attention.attn.o",),
        "attention.norm": ("attention.LayerNorm",),
    },
    relative="encoder.relative_attention_bias.weight",
    relative_turn=TRANSPOSED,
    defaults={"type_vocab_size": 0, "pad_token_id": 1},
    read=_buckets,
    write=_written_buckets,
)
