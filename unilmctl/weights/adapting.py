"""Tables resized: more or fewer positions, segments, words; and heads added.

Each function takes an encoder and returns another with the same weights but for one table; the one given is left as it
is. Rules: positions as in UniLM (the old rows repeated from the first), segments as in UniLM 1 (2 to 4 are copies of 0,
the source; 5 and 6 of 1, the target).

Shapes: P positions, S segments, V words, E width of the embeddings.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.errors import ModelError, UsageError
from unilmctl.model import Encoder, HeadConfig, ModelConfig
from unilmctl.weights.assembling import initial
from unilmctl.weights.families import family_of
from unilmctl.weights.names import Tensors

SEGMENT_COPIES = (0, 1, 0, 0, 0, 1, 1)
"""Which of the first two segments a new segment copies."""


class Resized(NamedTuple):
    """A table that changed its number of rows, and how."""

    name: str
    before: int
    after: int
    how: str


def with_positions(encoder: Encoder, positions: int) -> tuple[Encoder, Resized | None]:
    """The encoder with `positions` positions: the table [P, E] cropped, or repeated from its first row."""
    before = encoder.config.positions
    if positions < 1:
        raise UsageError(f"--positions {positions}: a model needs at least one position")
    if positions == before:
        return encoder, None
    config = replace(encoder.config, positions=positions)
    if encoder.embeddings.position is None:
        return rebuilt(config, encoder.state_dict(), encoder), Resized(
            "positions", before, positions, "this family has no table of them"
        )
    rows = torch.arange(positions) % before
    how = "the last rows dropped" if positions < before else "the old rows repeated from the first"
    changed = _with_rows(encoder, "embeddings.position.weight", rows, config)
    return changed, Resized("positions", before, positions, how)


def with_segments(encoder: Encoder, segments: int) -> tuple[Encoder, Resized | None]:
    """The encoder with `segments` segments, new ones copied by UniLM 1's rule; zeros where there was no table."""
    before, family = encoder.config.segments, encoder.config.family
    if "segment" not in family_of(family).embeddings:
        raise UsageError(f"--segments {segments}: models of type {family} have no segments")
    if not 1 <= segments <= len(SEGMENT_COPIES):
        raise UsageError(f"--segments {segments}: from 1 to {len(SEGMENT_COPIES)} segments are possible")
    if segments == before:
        return encoder, None
    config = replace(encoder.config, segments=segments)
    if before == 0:
        zeros = torch.zeros(segments, config.embedding_size)
        state = {**encoder.state_dict(), "embeddings.segment.weight": zeros}
        return rebuilt(config, state, encoder), Resized("segments", 0, segments, "zeros")
    rows = [index if index < before else min(SEGMENT_COPIES[index], before - 1) for index in range(segments)]
    copies = ", ".join(f"{index} from {row}" for index, row in enumerate(rows) if index != row)
    how = f"copied: {copies}" if copies else "the last rows dropped"
    changed = _with_rows(encoder, "embeddings.segment.weight", torch.tensor(rows), config)
    return changed, Resized("segments", before, segments, how)


def with_vocabulary(encoder: Encoder, words: Tensor, pad: int) -> Encoder:
    """The encoder with only the rows `words` [V'] of its vocabulary, in that order; `pad` is the new padding id."""
    config = replace(encoder.config, vocabulary=len(words), pad=pad)
    state = dict(encoder.state_dict())
    boundary = [f"extra.{head.name}.bias" for head in config.heads_extra if head.kind == "boundary"]
    for name in ("embeddings.word.weight", "head.bias", *boundary):
        state[name] = state[name][words]
    return rebuilt(config, state, encoder)


def with_heads(encoder: Encoder, heads: Sequence[HeadConfig], generator: torch.Generator) -> Encoder:
    """The encoder with these heads beside the language model's; those that it has keep their weights, others are new.

    ModelError for a head that it has as one of another kind or with other classes.
    """
    for head in heads:
        known = next((one for one in encoder.config.heads_extra if one.name == head.name), head)
        if (known.kind, known.classes) != (head.kind, head.classes):
            raise ModelError(
                f"the model's head '{head.name}' is of kind {known.kind} with {known.classes} classes, "
                f"not {head.kind} with {head.classes}",
                "give the new head another name",
            )
    config = encoder.config.with_heads(*heads)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Encoder(config).state_dict().items()}
    old = encoder.state_dict()
    new = {name: initial(name, shape, config, generator)[0] for name, shape in shapes.items() if name not in old}
    return rebuilt(config, {name: new[name] if name in new else old[name] for name in shapes}, encoder)


def with_inner_positions(encoder: Encoder, positions: int) -> Encoder:
    """The encoder with a table of so many second positions, zeros where it had none: what it computes stays."""
    if positions <= encoder.config.inner_positions:
        return encoder
    state = dict(encoder.state_dict())
    table = torch.zeros(positions, encoder.config.embedding_size)
    if encoder.embeddings.inner is not None:
        table[: encoder.config.inner_positions] = state["embeddings.inner.weight"]
    state["embeddings.inner.weight"] = table
    return rebuilt(replace(encoder.config, inner_positions=positions), state, encoder)


def with_generator(encoder: Encoder, generator: Encoder) -> Encoder:
    """The encoder with a generator beside it, whose own embeddings give way to the encoder's.

    ModelError when the two have other embeddings.
    """
    own = {
        f"generator.{name}": tensor
        for name, tensor in generator.state_dict().items()
        if not name.startswith("embeddings.") or name.startswith("embeddings.project.")
    }
    return rebuilt(replace(encoder.config, generator=generator.config), {**encoder.state_dict(), **own}, encoder)


def generator_of(encoder: Encoder) -> Encoder | None:
    """The encoder's generator as a model of its own, over the same tensors; None where there is none."""
    if encoder.generator is None:
        return None
    lent = {
        f"embeddings.{name}": tensor
        for name, tensor in encoder.embeddings.state_dict().items()
        if not name.startswith("project.")
    }
    return rebuilt(encoder.generator.config, {**lent, **encoder.generator.state_dict()}, encoder.generator)


def _with_rows(encoder: Encoder, name: str, rows: Tensor, config: ModelConfig) -> Encoder:
    state = dict(encoder.state_dict())
    state[name] = state[name][rows]
    return rebuilt(config, state, encoder)


def rebuilt(config: ModelConfig, state: Tensors, like: Encoder) -> Encoder:
    """An encoder of this configuration over these tensors (not copied), in the mode of `like`."""
    with torch.device("meta"):
        encoder = Encoder(config)
    encoder.load_state_dict(state, assign=True)
    return encoder.train(like.training)
