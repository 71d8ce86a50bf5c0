"""Tables resized: more or fewer positions, segments, words.

Each function takes an encoder and returns another with the same weights but for one table; the one given is left as it
is. Rules: positions as in UniLM (the old rows repeated from the first), segments as in UniLM 1 (2 to 4 are copies of 0,
the source; 5 and 6 of 1, the target).

Shapes: P positions, S segments, V words, E width of the embeddings.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.errors import UsageError
from unilmctl.model import Encoder, ModelConfig
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
    rows = torch.arange(positions) % before
    how = "the last rows dropped" if positions < before else "the old rows repeated from the first"
    changed = _with_rows(encoder, "embeddings.position.weight", rows, replace(encoder.config, positions=positions))
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
    for name in ("embeddings.word.weight", "head.bias"):
        state[name] = state[name][words]
    return rebuilt(config, state, encoder)


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
