"""The model that pre-training starts from, and the card of those it makes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from unilmctl.fitting import begun, decoding_defaults, with_dropout
from unilmctl.model import Encoder, HeadConfig
from unilmctl.model.heads import HeadKind
from unilmctl.objectives import BOUNDARY, CLASSES, REPLACED
from unilmctl.recipe import Entry, Pretrain, Recipe
from unilmctl.tokens import Tokenizer
from unilmctl.weights import Loaded, ModelCard, load_model
from unilmctl.weights.adapting import with_generator, with_heads, with_inner_positions, with_segments
from unilmctl.weights.folder import GENERATOR, load_whole

DECODES = {
    "next-token": "next-token",
    "causal": "causal",
    "pseudo": "pseudo",
    "partial": "pseudo",
    "masked": "masked",
    "seq2seq": "masked",
    "left-to-right": "masked",
}
"""Objectives that teach to write, the best teacher first, and what decoding then reads."""

FILLS = {
    "partial": "partial",
    "permuted-compensated": "permuted-compensated",
    "permuted": "permuted",
    "infilling": "infilling",
    "infilling-in-place": "infilling-in-place",
    "block-diffusion": "block-diffusion",
    "bidirectional": "bidirectional",
    "span-boundary": "bidirectional",
}
"""Objectives that teach to fill gaps, the best teacher first, and by which rows they are then filled."""

KINDS: dict[str, HeadKind] = {BOUNDARY: "boundary", REPLACED: "replaced"}
"""Heads that are not those of sentence tasks."""


def starting_model(plan: Recipe, section: Pretrain, tokenizer: Tokenizer) -> tuple[Loaded, list[str]]:
    """The encoder with the segments that the mix needs, its card, and what the user should know, a line each."""
    (encoder, card), notes = begun(plan, tokenizer, positions=plan.tokens.max_length)
    needed = 1 + max((segment for entry in section.entries for segment in entry.segments or ()), default=0)
    if needed > max(encoder.config.segments, 1):
        encoder, resized = with_segments(encoder, needed)
        notes += [f"segments grown from {resized.before} to {needed}: {resized.how}"] if resized else []
    encoder = _equipped(encoder, section.entries, plan)
    if section.replaces:
        encoder = _beside_generator(encoder, section.generator_size, plan)
    return Loaded(encoder, trained_card(plan, section, card)), notes


def heads_of(mix: Sequence[Entry]) -> list[HeadConfig]:
    """The heads that a mix trains beside the language model's."""
    names = dict.fromkeys(head for entry in mix for head in entry.heads)
    return [HeadConfig(name, KINDS.get(name, "class"), CLASSES.get(name, 2)) for name in names]


def _equipped(encoder: Encoder, mix: Sequence[Entry], plan: Recipe) -> Encoder:
    """The encoder with the heads and the second positions that a mix needs; what it has stays."""
    own = {head.name: head for head in encoder.config.heads_extra}
    wanted = own | {head.name: head for head in heads_of(mix)}
    if len(wanted) > len(own):
        encoder = with_heads(encoder, list(wanted.values()), torch.Generator().manual_seed(plan.seed))
    if any(entry.objective == "infilling" for entry in mix):
        encoder = with_inner_positions(encoder, plan.tokens.max_length)
    return encoder


def _beside_generator(encoder: Encoder, size: float, plan: Recipe) -> Encoder:
    """The encoder with the generator that was trained beside it, or a new one of a share `size` of its width."""
    init = plan.model.init
    if init is not None and (init / GENERATOR).is_dir():
        return with_generator(encoder, with_dropout(load_model(init / GENERATOR).encoder, plan.model))
    generator = Encoder(encoder.config.smaller(size))
    generator.initialize(torch.Generator().manual_seed(plan.seed))
    return with_generator(encoder, generator)


def resumed_model(checkpoint: Path, plan: Recipe, section: Pretrain) -> Loaded:
    """A checkpoint's model with what the recipe says about it now."""
    encoder, card = load_whole(checkpoint)
    return Loaded(with_dropout(encoder, plan.model), trained_card(plan, section, card))


def trained_card(plan: Recipe, section: Pretrain, card: ModelCard) -> ModelCard:
    """The card of the models that this recipe makes: how the objective that best teaches to write is decoded."""
    entry = _writing(section.plan[-1].mix)
    source, target = card.source_segment, card.target_segment
    if entry is not None and entry.segments is not None:
        source, target = entry.segments
    return replace(
        card,
        objective=card.objective if entry is None else DECODES[entry.objective],
        source_segment=source,
        target_segment=target,
        max_source=None,
        max_target=None,
        head_trained=not section.replaces,
        generate=decoding_defaults(plan),
        fills=_filling(section.plan[-1].mix),
    )


def _filling(mix: Sequence[Entry]) -> dict[str, list[int]]:
    """Objectives of a mix that teach to fill gaps, with their segments."""
    found: dict[str, list[int]] = {}
    for objective, rows in FILLS.items():
        for entry in mix:
            if entry.objective == objective:
                found.setdefault(rows, list(entry.segments or (0, 1)))
    return found


def _writing(mix: Sequence[Entry]) -> Entry | None:
    known = [entry for objective in DECODES for entry in mix if entry.objective == objective]
    return known[0] if known else None
