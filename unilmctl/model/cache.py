"""Keys and values of tokens already read, as a value that is passed in and returned.

The source is encoded once per sentence and its keys and values are *shared* by all beams of that sentence, never
copied for them; each beam has its *own* keys and values of the target so far. What may leave the cache is decided by
the visibility rule: a key stays readable until its `until` has passed.

Shapes: N sentences, K beams a sentence, R = N x K beams in sentence-major order, A heads, S source tokens, t target
tokens in the cache, d width of a head.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.visibility import Slots, stack


class KeysValues(NamedTuple):
    """Keys and values of one layer, [*, A, T, d] each."""

    keys: Tensor
    values: Tensor

    def append(self, other: "KeysValues") -> "KeysValues":
        """Both along the token dimension."""
        return KeysValues(torch.cat((self.keys, other.keys), 2), torch.cat((self.values, other.values), 2))


class Block(NamedTuple):
    """A run of cached tokens: one `KeysValues` a layer, the tokens' slots and positions [*, T]."""

    layers: list[KeysValues]
    slots: Slots
    positions: Tensor

    def select(self, rows: Tensor) -> "Block":
        """The same block for other rows: `rows` [R'] indexes the first dimension."""
        layers = [KeysValues(layer.keys[rows], layer.values[rows]) for layer in self.layers]
        return Block(layers, Slots(*(part[rows] for part in self.slots)), self.positions[rows])

    def columns(self, index: slice) -> "Block":
        """Only these columns of the block."""
        layers = [KeysValues(layer.keys[:, :, index], layer.values[:, :, index]) for layer in self.layers]
        return Block(layers, self.slots.select(index), self.positions[:, index])

    def append(self, other: "Block") -> "Block":
        """The columns of both."""
        layers = [mine.append(theirs) for mine, theirs in zip(self.layers, other.layers, strict=True)]
        return Block(layers, stack([self.slots, other.slots]), torch.cat((self.positions, other.positions), 1))


@dataclass(frozen=True)
class Cache:
    """`shared`: the sources of N sentences; `own`: what each of the R beams has written, None before the first."""

    shared: Block
    own: Block | None = None

    def extended(self, block: Block) -> "Cache":
        """With the columns of `block` [R, ...] appended to every beam."""
        return Cache(self.shared, block if self.own is None else self.own.append(block))

    def reordered(self, beams: Tensor) -> "Cache":
        """With beam r continued from beam `beams[r]` [R] of the same sentence; the sources are not touched."""
        return self if self.own is None else Cache(self.shared, self.own.select(beams))

    def selected(self, sentences: Tensor, beams: Tensor) -> "Cache":
        """Only `sentences` [N'], with `beams` [N' x K] naming their beams."""
        return Cache(self.shared.select(sentences), None if self.own is None else self.own.select(beams))
