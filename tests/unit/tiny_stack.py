"""A small attention stack in float64, as plain as can be: what the properties of the rule are proved on."""

import numpy as np
import torch
from torch import Tensor

from unilmctl.rows import Batch, Row
from unilmctl.visibility import Slots, visible

LAYERS, WIDTH, VOCABULARY, POSITIONS = 3, 8, 40, 80


class Stack:
    """Embeddings and `LAYERS` of attention and feed-forward; weights from a seed. Knows the rule as one dense mask."""

    def __init__(self, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)

        def table(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64) / WIDTH**0.5

        self.tokens, self.positions, self.segments = table(VOCABULARY, WIDTH), table(POSITIONS, WIDTH), table(6, WIDTH)
        self.layers = [
            (table(WIDTH, WIDTH), table(WIDTH, WIDTH), table(WIDTH, WIDTH), table(WIDTH, WIDTH)) for _ in range(LAYERS)
        ]

    def embed(self, ids: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        return self.tokens[ids] + self.positions[positions] + self.segments[segments]

    def __call__(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [..., T, D] and mask [..., T, T] give states [..., T, D]."""
        for layer in range(LAYERS):
            states = self.layer(layer, states, states, mask)
        return states

    def layer(self, index: int, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """One layer: queries [..., Q, D] read keys [..., K, D]. A query that reads nothing gets nothing."""
        query, key, value, forward = self.layers[index]
        scores = (queries @ query) @ (keys @ key).transpose(-1, -2)
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1).nan_to_num(0.0)
        states = queries + weights @ (keys @ value)
        return states + torch.tanh(states @ forward)


def slots_of(row: Row) -> Slots:
    return Slots(*(torch.from_numpy(column) for column in (row.document, row.time, row.until)))


def run_row(stack: Stack, row: Row) -> Tensor:
    """States of one row, [T, D]."""
    ids, positions, segments = (torch.from_numpy(np.asarray(c)) for c in (row.ids, row.positions, row.segments))
    slots = slots_of(row)
    return stack(stack.embed(ids, positions, segments), visible(slots, slots))


def run_batch(stack: Stack, batch: Batch) -> Tensor:
    """States of a batch, [B, T, D]."""
    return stack(stack.embed(batch.ids, batch.positions, batch.segments), visible(batch.slots, batch.slots))
