"""How weights are named on disk: one table per family, read in both directions.

A `Rule` ties tensors of the encoder (`inside`) to tensors of a file (`outside`): both sides, joined along their first
dimension, are the same numbers. So one rule says that the fused query-key-value projection is three tensors in a file,
and another that RoBERTa's position table is two rows that no word uses followed by ours.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig

Tensors = dict[str, Tensor]


class Rule(NamedTuple):
    """Names of the encoder's tensors and of the file's, joined along the first dimension."""

    inside: tuple[str, ...]
    outside: tuple[str, ...]


class Family(NamedTuple):
    """What distinguishes a family's file: `model_type` is the key in `FAMILIES`; `head` names the LM head's modules."""

    prefix: str
    architecture: str
    dense: str
    norm: str
    bias: str


FAMILIES = {
    "bert": Family(
        "bert",
        "BertForMaskedLM",
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        bias="cls.predictions.bias",
    ),
    "roberta": Family(
        "roberta", "RobertaForMaskedLM", dense="lm_head.dense", norm="lm_head.layer_norm", bias="lm_head.bias"
    ),
    "xlm-roberta": Family(
        "roberta", "XLMRobertaForMaskedLM", dense="lm_head.dense", norm="lm_head.layer_norm", bias="lm_head.bias"
    ),
    "electra": Family(
        "electra",
        "ElectraForMaskedLM",
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        bias="generator_lm_head.bias",
    ),
}

LAYER_MODULES = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention.norm": ("attention.output.LayerNorm",),
    "inner": ("intermediate.dense",),
    "outer": ("output.dense",),
    "norm": ("output.LayerNorm",),
}
"""Modules of one layer, each with a weight and a bias: the encoder's name -> the names in a file."""


def family_of(name: str) -> Family:
    """The family's naming; ModelError when there is none."""
    if name not in FAMILIES:
        raise ModelError(f"model family '{name}' is not supported", f"supported: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def rules(config: ModelConfig) -> list[Rule]:
    """The name table of an encoder of this configuration, layer by layer."""
    family = family_of(config.family)
    found = _embedding_rules(config, family.prefix)
    for index in range(config.layers):
        for ours, theirs in LAYER_MODULES.items():
            outside = tuple(f"{family.prefix}.encoder.layer.{index}.{name}" for name in theirs)
            found += _module(f"layers.{index}.{ours}", *outside)
    if config.relative_buckets:
        found.append(Rule(("relative.weight",), (f"{family.prefix}.rel_pos_bias.weight",)))
    found += _module("head.dense", family.dense) + _module("head.norm", family.norm)
    found.append(Rule(("head.bias",), (family.bias,)))
    if config.pooler:
        found += _module("pooler", f"{family.prefix}.pooler.dense")
    if config.pair_head:
        found += _module("pair", "cls.seq_relationship")
    return found


def _embedding_rules(config: ModelConfig, prefix: str) -> list[Rule]:
    table = f"{prefix}.embeddings"
    reserved = ("embeddings.reserved",) if config.reserved_positions else ()
    found = [
        Rule(("embeddings.word.weight",), (f"{table}.word_embeddings.weight",)),
        Rule((*reserved, "embeddings.position.weight"), (f"{table}.position_embeddings.weight",)),
    ]
    if config.segments:
        found.append(Rule(("embeddings.segment.weight",), (f"{table}.token_type_embeddings.weight",)))
    found += _module("embeddings.norm", f"{table}.LayerNorm")
    if config.embedding_size != config.hidden:
        found += _module("embeddings.project", f"{prefix}.embeddings_project")
    return found


def _module(inside: str, *outside: str) -> list[Rule]:
    return [Rule((f"{inside}.{kind}",), tuple(f"{name}.{kind}" for name in outside)) for kind in ("weight", "bias")]


def shapes_on_disk(table: list[Rule], inside: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """The shape of every file tensor, from the shapes of the encoder's."""
    found: dict[str, torch.Size] = {}
    for rule in table:
        rows = sum(inside[name][0] for name in rule.inside) // len(rule.outside)
        for name in rule.outside:
            found[name] = torch.Size((rows, *inside[rule.inside[0]][1:]))
    return found


def to_disk(table: list[Rule], inside: Mapping[str, Tensor]) -> Tensors:
    """The encoder's tensors under the family's names."""
    found: Tensors = {}
    for rule in table:
        joined = _joined([inside[name] for name in rule.inside])
        found.update(zip(rule.outside, joined.chunk(len(rule.outside)), strict=True))
    return found


def from_disk(table: list[Rule], outside: Tensors, inside: Mapping[str, torch.Size]) -> Tensors:
    """A file's tensors, taken out of `outside`, under the encoder's names; rules that miss a tensor are left out."""
    found: Tensors = {}
    for rule in table:
        if all(name in outside for name in rule.outside):
            joined = _joined([outside.pop(name) for name in rule.outside])
            found.update(zip(rule.inside, torch.split(joined, [inside[name][0] for name in rule.inside]), strict=True))
    return found


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
