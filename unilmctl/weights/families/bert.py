"""BERT, and the families whose layers have BERT's names: RoBERTa, XLM-R, ELECTRA.

UniLM, UniLM 2, MiniLM, MacBERT and Chinese RoBERTa-wwm are files of the BERT family.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.model import ModelConfig
from unilmctl.weights.families.family import Family
from unilmctl.weights.values import Values


def _buckets(values: Values, config: ModelConfig) -> ModelConfig:
    """UniLM 2's relative positions."""
    return replace(
        config,
        relative_buckets=values.integer("rel_pos_bins", 0),
        relative_distance=values.integer("max_rel_pos", 128),
    )


def _written_buckets(config: ModelConfig) -> Mapping[str, Any]:
    if not config.relative_buckets:
        return {}
    return {"rel_pos_bins": config.relative_buckets, "max_rel_pos": config.relative_distance}


BERT = Family(
    "bert",
    "BertForMaskedLM",
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.LayerNorm",
    bias="cls.predictions.bias",
    word_copies=("cls.predictions.decoder.weight", "cls.predictions.decoder_weight"),
    bias_copies=("cls.predictions.decoder.bias",),
    relative="rel_pos_bias.weight",
    read=_buckets,
    write=_written_buckets,
)

ROBERTA = replace(
    BERT,
    prefix="roberta",
    architecture="RobertaForMaskedLM",
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    bias="lm_head.bias",
    word_copies=("lm_head.decoder.weight",),
    bias_copies=("lm_head.decoder.bias",),
    defaults={"pad_token_id": 1},
)

XLM_ROBERTA = replace(ROBERTA, architecture="XLMRobertaForMaskedLM")

ELECTRA = replace(
    BERT,
    prefix="electra",
    architecture="ElectraForMaskedLM",
    dense="generator_predictions.dense",
    norm="generator_predictions.LayerNorm",
    bias="generator_lm_head.bias",
    word_copies=("generator_lm_head.weight",),
    bias_copies=(),
    defaults={"hidden_size": 256, "embedding_size": 128, "num_attention_heads": 4, "intermediate_size": 1024},
)
