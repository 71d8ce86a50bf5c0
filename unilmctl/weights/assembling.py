"""From the tensors of a checkpoint and its config.json to an encoder, with an account of every tensor.

What a checkpoint may lack (a language-model head) is initialised and reported; what it has beyond the encoder (heads of
other tasks) is left over and reported; anything else that does not fit is refused, because a model with a piece missing
or ignored would compute something else without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, HeadConfig, ModelConfig
from unilmctl.weights.configuration import family_name, model_config
from unilmctl.weights.dialects import Leftover, normalised
from unilmctl.weights.families import Family, Rule, family_of
from unilmctl.weights.names import DISCRIMINATOR, INNER_POSITIONS, Tensors, constants, from_disk, rules, shapes_on_disk
from unilmctl.weights.reading import checked

HeadState = Literal["trained", "untrained", "missing"]


@dataclass(frozen=True)
class Missing:
    """A tensor of the encoder that the checkpoint lacks, and what it was initialised to."""

    name: str
    shape: tuple[int, ...]
    initialised: str


@dataclass(frozen=True)
class Assembly:
    """An encoder and where its weights came from. `loaded` counts the file's tensors that went into it."""

    encoder: Encoder
    loaded: int
    missing: list[Missing]
    left_over: list[Leftover]
    notes: list[str]

    @property
    def head(self) -> HeadState:
        """Whether the language-model head was there, and whether it looks trained."""
        if any(part.name.startswith("head.") for part in self.missing):
            return "missing"
        return "trained" if head_looks_trained(self.encoder) else "untrained"


def assemble(tensors: Tensors, raw: Mapping[str, Any], where: str, architecture: str | None = None) -> Assembly:
    """Build the encoder that `raw` (a config.json) describes from a checkpoint's tensors, named as on disk.

    `where` names the checkpoint in errors. Raises ModelError when the two do not belong together.
    """
    family = family_name(raw, tensors, where, architecture)
    tensors, left_over = normalised(tensors, family_of(family))
    config, notes = fitted(model_config(raw, family, where), tensors, where)
    with torch.device("meta"):  # shapes only: nothing is allocated before they are known to be those of the file
        encoder = Encoder(config)
    inside = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    table = rules(config)
    sound = {
        name: checked(name, tensors.pop(name), shape, where)
        for name, shape in shapes_on_disk(table, inside).items()
        if name in tensors
    }
    left_over += _without_constants(tensors, config, where)
    _refuse_unknown_parts(tensors, family_of(family), where)
    found = len(sound)
    state = from_disk(table, sound, inside)
    missing = _initialise_missing(state, inside, config, where)
    encoder.load_state_dict(state, assign=True)
    encoder.requires_grad_(True)
    left_over += [Leftover(name, "no part of this model") for name in tensors]
    return Assembly(encoder.eval(), found, missing, left_over, notes)


def fitted(config: ModelConfig, tensors: Tensors, where: str) -> tuple[ModelConfig, list[str]]:
    """The configuration with optional parts and table sizes as the tensors have them, and a note for each difference.

    Position and segment tables are often resized without the configuration being told (UniLM 1 does), so here the
    tensors are believed; every other size must agree.
    """
    family = family_of(config.family)
    relative = tensors.get(family.named(family.relative))
    if relative is not None and family.relative_turn is not None:
        relative = family.relative_turn.inward(relative)
    tables = {part: f"{family.named(name)}.weight" for part, name in family.embeddings.items()}
    positions = _rows(tensors, tables.get("position"), config.reserved_positions)
    sizes = {
        "positions": config.positions if positions is None else positions,
        "segments": _rows(tensors, tables.get("segment")) or 0,
        "inner_positions": _rows(tensors, INNER_POSITIONS) or 0,
        "relative_buckets": relative.shape[1] if relative is not None and relative.dim() == 2 else 0,
    }
    if config.relative_buckets and relative is None:
        raise ModelError(
            f"{where}: config.json has relative positions, but '{family.named(family.relative)}' is not there"
        )
    told = {name: getattr(config, name) for name in sizes}
    notes = [
        f"config.json says {told[name]} {name.replace('_', ' ')}; the tensors have {size}"
        for name, size in sizes.items()
        if size != told[name]
    ]
    config = replace(
        _with_discriminator(config, tensors),
        positions=sizes["positions"],
        segments=sizes["segments"],
        inner_positions=sizes["inner_positions"],
        relative_buckets=sizes["relative_buckets"],
        pooler=config.pooler or f"{family.named(family.pooler)}.weight" in tensors,
        pair_head=config.pair_head or _rows(tensors, f"{family.pair}.weight") == 2,
    )
    buckets, distance = config.relative_buckets, config.relative_distance
    if buckets and (buckets < 4 or distance <= buckets // 4):
        raise ModelError(f"{where}: {buckets} relative buckets up to distance {distance} make no sense")
    return config, notes


def _with_discriminator(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """The configuration with the head that files of ELECTRA's discriminators have, and that no config.json lists."""
    known = any(head.kind == "replaced" for head in config.heads_extra)
    if known or not all(f"{DISCRIMINATOR}.{part}.weight" in tensors for part in ("dense", "dense_prediction")):
        return config
    return config.with_heads(*config.heads_extra, HeadConfig("replaced", "replaced"))


def _rows(tensors: Tensors, name: str | None, less: int = 0) -> int | None:
    tensor = tensors.get(name or "")
    return tensor.shape[0] - less if tensor is not None and tensor.dim() == 2 and tensor.shape[0] > less else None


def _without_constants(tensors: Tensors, config: ModelConfig, where: str) -> list[Leftover]:
    """Takes out of `tensors` what follows from the configuration; ModelError where it does not."""
    found = []
    for name, expected in constants(config).items():
        tensor = tensors.pop(name, expected)
        if tensor is expected:
            continue
        rows = min(len(tensor), len(expected)) if tensor.dim() == expected.dim() else 0
        same = tensor.shape[1:] == expected.shape[1:] and tensor.is_floating_point()
        if not rows or not same or not torch.allclose(tensor[:rows].float(), expected[:rows], atol=1e-2):
            raise ModelError(f"{where}: '{name}' is not what config.json makes it", "such a model is not supported")
        found.append(Leftover(name, "a constant that is made again when the model is written"))
    return found


def _refuse_unknown_parts(tensors: Tensors, family: Family, where: str) -> None:
    """Refuse tensors of the encoder that have no place: without them it would compute something else."""
    parts = tuple(family.named(part) for part in family.bare if part != "pooler.")
    for name in tensors:
        if name.startswith(parts):
            raise ModelError(
                f"{where}: '{name}' has no place in the encoder that config.json describes",
                "the configuration belongs to another checkpoint, or the architecture is not supported",
            )


def _initialise_missing(
    state: Tensors, inside: Mapping[str, torch.Size], config: ModelConfig, where: str
) -> list[Missing]:
    """Fill in an absent language-model head; refuse anything else that is absent.

    A pooler or a pair head, on which a head of config.json's list may stand, is then no more optional than that head.
    """
    generator = torch.Generator().manual_seed(0)
    optional = ("head.",) if config.heads_extra else ("head.", "pooler.", "pair.")
    missing = []
    for name, shape in inside.items():
        if name in state:
            continue
        if not name.startswith(optional):
            raise ModelError(f"{where}: {_outside_name(name, config)} is missing")
        state[name], how = initial(name, shape, config, generator)
        missing.append(Missing(name, tuple(shape), how))
    return missing


def _outside_name(inside: str, config: ModelConfig) -> str:
    rule: Rule = next(rule for rule in rules(config) if inside in rule.inside)
    return " / ".join(f"'{name}'" for name in rule.outside)


def initial(name: str, shape: torch.Size, config: ModelConfig, generator: torch.Generator) -> tuple[Tensor, str]:
    """A tensor of the encoder as BERT initialises it, and how in words."""
    if name.endswith(".bias"):
        return torch.zeros(shape), "0"
    if name.endswith("norm.weight"):
        return torch.ones(shape), "1"
    spread = config.initializer_range
    return torch.normal(0.0, spread, tuple(shape), generator=generator), f"normal, standard deviation {spread:g}"


def head_looks_trained(encoder: Encoder) -> bool:
    """False when the head's norm is still 1 and 0 and its bias 0: no training step has ever moved it."""
    norm, biases = encoder.head.norm, (encoder.head.norm.bias, encoder.head.bias)
    fresh = bool((norm.weight == 1).all()) and all(bias is None or bool((bias == 0).all()) for bias in biases)
    return not fresh
