"""NEZHA: BERT with fixed vectors for distances, added to keys and values, instead of a table of positions.

(Wei et al. 2019, arXiv 1909.00204.) Huawei's own files are named as BERT's and say `use_relative_position`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.model import ModelConfig
from unilmctl.weights.families.bert import BERT
from unilmctl.weights.families.family import BERT_EMBEDDINGS
from unilmctl.weights.values import Values


def _distances(values: Values, config: ModelConfig) -> ModelConfig:
    return replace(config, position="relative", relative_distance=values.integer("max_relative_position", 64))


def _written_distances(config: ModelConfig) -> Mapping[str, Any]:
    return {"use_relative_position": True, "max_relative_position": config.relative_distance}


NEZHA = replace(
    BERT,
    prefix="nezha",
    architecture="NezhaForMaskedLM",
    embeddings={ours: theirs for ours, theirs in BERT_EMBEDDINGS.items() if ours not in ("position", "project")},
    relative="",
    read=_distances,
    write=_written_distances,
)
