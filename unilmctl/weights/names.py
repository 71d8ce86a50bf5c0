"""How weights are named on disk: one table per encoder, made of its family's names, read in both directions."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unilmctl.model import Encoder, ModelConfig
from unilmctl.weights.families import Family, Rule, family_of, module

Tensors = dict[str, Tensor]

INNER_POSITIONS = "inner_position_embeddings.weight"
"""The table of second positions, which no family has a name for."""


DISCRIMINATOR = "discriminator_predictions"
"""What transformers calls the two layers of ELECTRA's discriminator, our head of kind "replaced"."""


def rules(config: ModelConfig) -> list[Rule]:
    """The name table of an encoder of this configuration, layer by layer: the family's rules for the tensors it has."""
    family = family_of(config.family)
    with torch.device("meta"):
        inside = Encoder(config).state_dict()
    candidates = _embedding_rules(config, family)
    for index in range(config.distinct_layers):
        for ours, theirs in family.modules.items():
            outside = (family.named(f"{family.layer.format(index)}.{name}") for name in theirs)
            candidates += module(f"layers.{index}.{ours}", *outside)
    candidates.append(Rule(("relative.weight",), (family.named(family.relative),), family.relative_turn))
    candidates += [*family.rules(config), *module("head.dense", family.dense), *module("head.norm", family.norm)]
    candidates.append(Rule(("head.bias",), (family.bias,)))
    candidates += [Rule((name,), (_extra_name(name, config),)) for name in inside if name.startswith("extra.")]
    candidates.append(Rule(("embeddings.inner.weight",), (INNER_POSITIONS,)))
    candidates += module("pooler", family.named(family.pooler)) + module("pair", family.pair)
    return [rule for rule in candidates if all(name in inside for name in rule.inside)]


def _extra_name(name: str, config: ModelConfig) -> str:
    """`heads.NAME.PART`, where transformers looks past it; ELECTRA's discriminator has a name there."""
    _, head, part = name.split(".", 2)
    return f"{DISCRIMINATOR}.{part}" if config.head(head).kind == "replaced" else f"heads.{head}.{part}"


def _embedding_rules(config: ModelConfig, family: Family) -> list[Rule]:
    found = []
    for ours, theirs in family.embeddings.items():
        found += module(f"embeddings.{ours}", family.named(theirs))
    if config.reserved_positions:
        table = f"{family.named(family.embeddings['position'])}.weight"
        found = [rule for rule in found if table not in rule.outside]
        found.append(Rule(("embeddings.reserved", "embeddings.position.weight"), (table,)))
    return found


def constants(config: ModelConfig) -> Tensors:
    """What a file of the family holds beside the encoder's tensors, though it follows from the configuration."""
    family = family_of(config.family)
    return {family.named(name): make(config) for name, make in family.constants.items()}


def shapes_on_disk(table: list[Rule], inside: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """The shape of every file tensor, from the shapes of the encoder's."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in inside.items()}
    return {name: tensor.shape for name, tensor in to_disk(table, empty).items()}


def to_disk(table: list[Rule], inside: Mapping[str, Tensor]) -> Tensors:
    """The encoder's tensors under the family's names."""
    found: Tensors = {}
    for rule in table:
        parts = _joined([inside[name] for name in rule.inside]).chunk(len(rule.outside))
        for name, part in zip(rule.outside, parts, strict=True):
            found[name] = part if rule.turn is None else rule.turn.outward(part)
    return found


def from_disk(table: list[Rule], outside: Tensors, inside: Mapping[str, torch.Size]) -> Tensors:
    """A file's tensors, taken out of `outside`, under the encoder's names; rules that miss a tensor are left out."""
    found: Tensors = {}
    for rule in table:
        if all(name in outside for name in rule.outside):
            parts = [outside.pop(name) for name in rule.outside]
            joined = _joined(parts if rule.turn is None else [rule.turn.inward(part) for part in parts])
            found.update(zip(rule.inside, torch.split(joined, [inside[name][0] for name in rule.inside]), strict=True))
    return found


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
