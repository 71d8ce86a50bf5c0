"""The model that training starts from: a model folder, or random weights."""

from dataclasses import replace
from typing import Any

import torch

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, ModelConfig
from unilmctl.recipe import Model, Recipe
from unilmctl.tokens import Tokenizer
from unilmctl.weights import Loaded, ModelCard, load_model
from unilmctl.weights.adapting import rebuilt, with_positions


def starting_model(recipe: Recipe, tokenizer: Tokenizer) -> tuple[Loaded, list[str]]:
    """The encoder and its card as this recipe trains them, and what the user should know about them, a line each."""
    notes: list[str] = []
    if recipe.model.init is None:
        encoder = _from_scratch(recipe, tokenizer)
        source, target = (0, 1) if encoder.config.segments > 1 else (0, 0)
    else:
        encoder, card = load_model(recipe.model.init)
        source, target = card.source_segment, card.target_segment
        if not card.head_trained:
            notes.append(f"{recipe.model.init}: its language-model head was never trained; it starts untrained")
    if tokenizer.size > encoder.config.vocabulary:
        raise ModelError(
            f"the vocabulary has {tokenizer.size} entries, the model {encoder.config.vocabulary}",
            "use the tokenizer that belongs to the model",
        )
    needed = recipe.tokens.max_source + recipe.tokens.max_target
    if needed > encoder.config.positions:
        encoder, resized = with_positions(encoder, needed)
        notes.append(f"positions grown from {resized.before} to {needed}: {resized.how}" if resized else "")
    encoder = _with_dropout(encoder, recipe.model)
    return Loaded(encoder, trained_card(recipe, source, target)), notes


def resumed_model(loaded: Loaded, recipe: Recipe) -> Loaded:
    """A checkpoint's model with what the recipe says about it now."""
    card = trained_card(recipe, loaded.card.source_segment, loaded.card.target_segment)
    return Loaded(_with_dropout(loaded.encoder, recipe.model), card)


def trained_card(recipe: Recipe, source_segment: int, target_segment: int) -> ModelCard:
    """The card of the models that this recipe makes."""
    return ModelCard(
        objective=recipe.finetune.objective,
        source_segment=source_segment,
        target_segment=target_segment,
        max_source=recipe.tokens.max_source,
        max_target=recipe.tokens.max_target,
        truncate=recipe.tokens.truncate,
        separator_in=recipe.finetune.separator_in,
        generate=decoding_defaults(recipe),
    )


def decoding_defaults(recipe: Recipe) -> dict[str, Any]:
    """The recipe's decoding options that a model carries along; how much is decoded at a time is the machine's."""
    values: dict[str, Any] = recipe.resolved()["generate"]
    return {name: value for name, value in values.items() if name not in ("batch_tokens", "workers", "dtype")}


def _from_scratch(recipe: Recipe, tokenizer: Tokenizer) -> Encoder:
    shape = recipe.model.shape
    if shape is None:
        raise ModelError("the recipe names no model", "set model.init or model.architecture")
    config = ModelConfig(
        vocabulary=tokenizer.size,
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        feedforward=shape.feedforward,
        positions=shape.positions,
        segments=shape.segments,
        activation=shape.activation,
        relative_buckets=shape.relative_buckets,
        pad=tokenizer.roles.pad,
    )
    encoder = Encoder(config)
    encoder.initialize(torch.Generator().manual_seed(recipe.seed))
    return encoder


def _with_dropout(encoder: Encoder, model: Model) -> Encoder:
    config = encoder.config
    changed = replace(
        config,
        dropout=config.dropout if model.dropout is None else model.dropout,
        attention_dropout=config.attention_dropout if model.attention_dropout is None else model.attention_dropout,
    )
    return encoder if changed == config else rebuilt(changed, encoder.state_dict(), encoder)
