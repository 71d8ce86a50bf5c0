"""Keys and values of sentences and of all that their beams have written, in one preallocated table a layer.

A sentence has C columns. The first of them hold its source; every token that a beam writes takes a free one, and
`seen` says which columns each beam reads: those of its source and those of its own past. So beams share what they have
in common, nothing is copied when they change places, and a column that no beam reads any more is free again. This is
the visibility rule once more, kept as what it said when each token was written: all in the cache stays readable.

Shapes: N sentences, B beams a sentence, R = N x B rows in sentence-major order, Q new tokens a row, A heads, C columns,
S source tokens, d width of a head.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.model.config import ModelConfig
from unilmctl.visibility import Slots, visible

STRIDE = 32
"""Columns are added in steps of this: kernels are compiled and remembered for every shape they meet, and those for
fewer columns round in another way."""


class KeysValues(NamedTuple):
    """Keys and values of one layer, [*, A, T, d] each."""

    keys: Tensor
    values: Tensor


class Places(NamedTuple):
    """Where new tokens go: columns [N, B, Q], and rows [R * Q * 2 * A] of a layer's table seen as a list of vectors."""

    columns: Tensor
    vectors: Tensor


@dataclass
class Cache:
    """`tables`: keys and values [2, N+, A, C, d] of each layer, with room for N+ >= N sentences; `seen` [N, B, C] bool;
    `positions` [N+, C] of the tokens in the columns.

    Whoever calls a method that returns a cache gives the old one up: it is changed in place.
    """

    tables: list[Tensor]
    seen: Tensor
    positions: Tensor

    @staticmethod
    def empty(
        config: ModelConfig, sentences: int, columns: int, *, dtype: torch.dtype, device: torch.device
    ) -> "Cache":
        """Room for so many sentences of one beam each, with at least so many columns, of which none is seen."""
        columns = -(-columns // STRIDE) * STRIDE
        shape = (2, sentences, config.heads, columns, config.hidden // config.heads)
        tables = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        seen = torch.zeros(sentences, 1, columns, dtype=torch.bool, device=device)
        return Cache(tables, seen, torch.zeros(sentences, columns, dtype=torch.long, device=device))

    def fill(self, first: int, sources: list[KeysValues], sizes: Tensor) -> None:
        """The sources [n, A, S, d] a layer of sentences `first` to first + n, of which `sizes` [n] tokens are real."""
        count, _, tokens, _ = sources[0].keys.shape
        rows = slice(first, first + count)
        for table, source in zip(self.tables, sources, strict=True):
            table[0, rows, :, :tokens] = source.keys
            table[1, rows, :, :tokens] = source.values
        order = torch.arange(self.columns, device=sizes.device)
        self.seen[rows] = order < sizes[:, None, None]
        self.positions[rows] = order

    @property
    def sentences(self) -> int:
        """N."""
        return self.seen.shape[0]

    @property
    def columns(self) -> int:
        """C."""
        return self.seen.shape[2]

    def place(self, positions: Tensor) -> Places:
        """Free columns for new tokens at `positions` [R, Q]: each sentence's first ones, whatever the others do."""
        sentences, beams, _ = self.seen.shape
        wanted = beams * positions.shape[1]
        free = ~self.seen.any(1)
        short = wanted - int(free.sum(1).min())
        if short > 0:
            self._resize(self.sentences, self.columns + -(-short // STRIDE) * STRIDE)
            free = ~self.seen.any(1)
        order = torch.arange(1, wanted + 1, device=free.device).repeat(sentences, 1)
        found = torch.searchsorted(free.cumsum(1), order)  # [N, Q * B]: what stays comes first and leaves no gaps
        columns = found.view(sentences, -1, beams).transpose(1, 2).flatten(1)  # [N, B * Q]
        self.positions[:sentences].scatter_(1, columns, positions.view(sentences, wanted))
        return Places(columns.view(sentences, beams, -1), self._vectors(columns))

    def _vectors(self, columns: Tensor) -> Tensor:
        """Keys and values of each new token and head, as rows of a table that is seen as [2 * N+ * A * C, d]."""
        _, room, heads, width, _ = self.tables[0].shape
        device = columns.device
        kind = torch.arange(2, device=device)[:, None] * room * heads
        head = kind + torch.arange(heads, device=device)  # [2, A]
        sentence = torch.arange(len(columns), device=device)[:, None, None, None] * heads
        return ((sentence + head) * width + columns[:, :, None, None]).flatten()

    def mask(self, slots: Slots, places: Places, dtype: torch.dtype) -> Tensor:
        """What new tokens [R, Q] see, to be added to scores [N, 1, B * Q, C]: their past, each other by the rule."""
        sentences, beams, queries = places.columns.shape
        nothing = torch.zeros((), dtype=dtype, device=self.seen.device)
        past = torch.where(self.seen[:, :, None], nothing, float("-inf")).expand(-1, -1, queries, -1)
        among = torch.where(visible(slots, slots), nothing, float("-inf")).view(sentences, beams, queries, queries)
        targets = places.columns[:, :, None, :].expand(-1, -1, queries, -1)
        return past.scatter(3, targets, among).view(sentences, 1, beams * queries, self.columns)

    def keep(self, places: Places, kept: int | Tensor) -> None:
        """The first `kept` new tokens of each row, or those of `kept` [R, Q], stay: its beam reads them from now on."""
        if isinstance(kept, Tensor):
            self.seen.scatter_(2, places.columns, kept.view(places.columns.shape))
        else:
            self.seen.scatter_(2, places.columns[:, :, :kept], value=True)

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Cache":
        """Beam r continues beam `rows[r]` [R'] of the same sentence; only `sentences` [N'] stay, in that order."""
        count = self.sentences if sentences is None else len(sentences)
        if sentences is not None:
            self._move(sentences)
        self.seen = self.seen.flatten(0, 1)[rows].view(count, -1, self.columns)
        return self

    def _move(self, sentences: Tensor) -> None:
        """Brings those that stay to the front; who is in his place already is not touched."""
        places = torch.arange(len(sentences), device=sentences.device)
        moving = (sentences != places).nonzero()[:, 0]
        if len(moving) == 0:
            return
        origins = sentences[moving]
        for table in self.tables:
            table[:, moving] = table[:, origins]
        self.positions[moving] = self.positions[origins]

    def joined(self, other: "Cache") -> "Cache":
        """With the sentences of `other`, which have as many beams, after those of this one."""
        here, there = self.sentences, other.sentences
        columns = max(self._used(), other.columns)
        self._resize(max(self.tables[0].shape[1], here + there), columns)
        for mine, theirs in zip(self.tables, other.tables, strict=True):
            mine[:, here : here + there, :, : other.columns] = theirs[:, :there]
        self.positions[here : here + there, : other.columns] = other.positions[:there]
        more = functional.pad(other.seen, (0, columns - other.columns))
        self.seen = torch.cat((self.seen, more))
        return self

    def _used(self) -> int:
        """Columns up to the last one that is read, in steps of `STRIDE`."""
        read = self.seen.any(1).any(0).nonzero()
        return -(-(int(read[-1]) + 1) // STRIDE) * STRIDE if len(read) else 0

    def _resize(self, room: int, columns: int) -> None:
        """Room for so many sentences and columns; one layer after the other, so that little memory is held twice.

        There is never more than a step's room to spare: kernels read all columns, and copy a table of which they are to
        read a part.
        """
        if (room, columns) == (self.tables[0].shape[1], self.columns):
            return
        kept, used = min(columns, self.columns), self.sentences
        for layer, old in enumerate(self.tables):
            new = old.new_zeros(2, room, old.shape[2], columns, old.shape[4])
            new[:, :used, :, :kept] = old[:, :used, :, :kept]
            self.tables[layer] = new
        positions = self.positions.new_zeros(room, columns)
        positions[:used, :kept] = self.positions[:used, :kept]
        self.positions = positions
        self.seen = functional.pad(self.seen, (0, columns - self.columns))
