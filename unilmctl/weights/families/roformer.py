"""RoFormer: BERT whose queries and keys are turned by their positions, neighbouring numbers being a pair.

(Su et al. 2021, arXiv 2104.09864.) Files hold the sines and cosines too: a constant, which is made again when written.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.weights.families.bert import BERT
from unilmctl.weights.families.family import BERT_EMBEDDINGS
from unilmctl.weights.values import Values


def _rotary(values: Values, config: ModelConfig) -> ModelConfig:
    if values.flag("rotary_value", default=False):
        raise ModelError(f"{values.where}: 'rotary_value' is true; values that are turned are not supported")
    if values.raw.get("norm_type", "layer_norm") != "layer_norm" or not values.flag("use_bias", default=True):
        raise ModelError(f"{values.where}: RoFormer's version 2 is not supported", "version 1 has norms with weights")
    return replace(config, position="interleaved")


def _written_rotary(config: ModelConfig) -> Mapping[str, Any]:
    return {"rotary_value": False, "embedding_size": config.embedding_size}


def _angles(config: ModelConfig) -> Tensor:
    """Sines, then cosines, of every position: [positions, d]."""
    powers = torch.arange(0, config.head_width, 2, dtype=torch.float64) / config.head_width
    angles = torch.arange(config.positions, dtype=torch.float64)[:, None] / config.rotary_base**powers
    return torch.cat((angles.sin(), angles.cos()), 1).float()


ROFORMER = replace(
    BERT,
    prefix="roformer",
    architecture="RoFormerForMaskedLM",
    embeddings={ours: theirs for ours, theirs in BERT_EMBEDDINGS.items() if ours != "position"},
    relative="",
    defaults={"max_position_embeddings": 1536},
    read=_rotary,
    write=_written_rotary,
    constants={"encoder.embed_positions.weight": _angles},
)
