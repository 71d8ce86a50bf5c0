"""The model that training starts from: a model folder, or random weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unilmctl import console
from unilmctl.errors import ModelError
from unilmctl.model import Encoder, ModelConfig
from unilmctl.recipe import Model, Recipe, Training
from unilmctl.runs import RunFolder
from unilmctl.tokens import Tokenizer
from unilmctl.training.distributed import Processes
from unilmctl.training.sharding import shard
from unilmctl.weights import Loaded, ModelCard, load_model
from unilmctl.weights.adapting import rebuilt, with_positions
from unilmctl.weights.folder import default_segments


def newest(
    folder: RunFolder,
    processes: Processes,
    *,
    begin: Callable[[], tuple[Loaded, list[str]]],
    again: Callable[[Path], Loaded],
) -> tuple[Path | None, Loaded]:
    """The newest whole checkpoint and its model (`again`); or None, and the model that training begins with (`begin`).

    Says which checkpoints are broken, and what `begin` has to say.
    """
    checkpoint, problems = processes.from_first(folder.newest)
    notes = [f"a checkpoint is broken and left out: {problem}" for problem in problems]
    if checkpoint is None:
        loaded, more = begin()
        notes += more
    else:
        loaded = again(checkpoint)
    for note in notes if processes.first else ():
        console.warn(note)
    return checkpoint, loaded


def place(encoder: Encoder, section: Training, processes: Processes) -> None:
    """Puts the encoder where this process trains it, shared out if the recipe asks for it."""
    encoder.to(processes.device)
    if section.sharding == "full" and processes.size > 1:
        shard(encoder, processes)


def begun(recipe: Recipe, tokenizer: Tokenizer, *, positions: int) -> tuple[Loaded, list[str]]:
    """The model of the recipe with at least so many positions and the dropout that it asks for, with its own card.

    Also what the user should know about it, a line each. ModelError when the vocabulary does not fit.
    """
    notes: list[str] = []
    if recipe.model.init is None:
        encoder = _from_scratch(recipe, tokenizer)
        source, target = default_segments(min(encoder.config.segments, 2))
        card = ModelCard(source_segment=source, target_segment=target, fills={})
    else:
        encoder, card = load_model(recipe.model.init)
        if not card.head_trained:
            notes.append(f"{recipe.model.init}: its language-model head was never trained; it starts untrained")
    if tokenizer.size > encoder.config.vocabulary:
        raise ModelError(
            f"the vocabulary has {tokenizer.size} entries, the model {encoder.config.vocabulary}",
            "use the tokenizer that belongs to the model",
        )
    if positions > encoder.config.positions:
        encoder, resized = with_positions(encoder, positions)
        notes.append(f"positions grown from {resized.before} to {positions}: {resized.how}" if resized else "")
    return Loaded(with_dropout(encoder, recipe.model), card), notes


def with_dropout(encoder: Encoder, model: Model) -> Encoder:
    """The encoder with the dropout that the recipe asks for, its own where it does not."""
    config = encoder.config
    changed = replace(
        config,
        dropout=config.dropout if model.dropout is None else model.dropout,
        attention_dropout=config.attention_dropout if model.attention_dropout is None else model.attention_dropout,
    )
    return encoder if changed == config else rebuilt(changed, encoder.state_dict(), encoder)


def decoding_defaults(recipe: Recipe) -> dict[str, Any]:
    """The recipe's decoding options that a model carries along; how much is decoded at a time is the machine's."""
    values: dict[str, Any] = recipe.resolved()["generate"]
    return {name: value for name, value in values.items() if name not in ("batch_tokens", "workers", "dtype", "device")}


def _from_scratch(recipe: Recipe, tokenizer: Tokenizer) -> Encoder:
    shape = recipe.model.shape
    if shape is None:
        raise ModelError("the recipe names no model", "set model.init or model.architecture")
    config = ModelConfig(
        vocabulary=tokenizer.size,
        family=shape.architecture,
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        feedforward=shape.feedforward,
        positions=shape.positions,
        segments=shape.segments,
        activation=shape.activation,
        embedding=None if shape.embedding == shape.hidden else shape.embedding,
        relative_buckets=shape.relative_buckets,
        pad=tokenizer.roles.pad,
    )
    encoder = Encoder(config)
    encoder.initialize(torch.Generator().manual_seed(recipe.seed))
    return encoder
