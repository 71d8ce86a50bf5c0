"""One step after another, from cached keys and values.

The source of each sentence is encoded once, and its keys and values are stored once, whatever the number of beams. A
step then reads, in one of two ways,

- `mask` (models trained with `pseudo` or `masked`): the previous token and a [MASK] after it. Step i writes the content
  token i-1 at time 2i and reads the prediction of token i at a [MASK] that lives at time 2i+1 only, so that the content
  token's column stays in the cache and the [MASK]'s is free again.
- `next` (`causal`): the previous token alone, which predicts the token after it. A decoder that `continues` was trained
  with `next-token`: its source is the beginning of a text, in which no token sees those after it.

Sentences that are decoded together may be of different age.

Shapes: N sentences, B beams a sentence, R = N x B rows in sentence-major order, S source tokens with special ones, D
hidden width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unilmctl.model import Cache, Encoder, KeysValues
from unilmctl.rows import Frame, Ints
from unilmctl.visibility import FOREVER, PADDING, Slots

Reading = Literal["mask", "next"]

ENCODED = 512
"""Source tokens that are encoded at a time: enough for the kernels, few enough that their results stay in the
processor's cache and the memory of a large batch is that of its keys and values."""

SPARE = 12
"""Columns beside those of a target: for the tokens of beams that are about to end."""

MULTIPLE = 4
"""Sources are padded to a multiple of this: kernels treat the last one to three rows in another way."""

ROOM = 48
"""Columns for target tokens that a cache begins with; more are added when they are needed."""


@dataclass
class Written:
    """What R rows have written: their cache, the source lengths [N], and the counts [N] of tokens written so far.

    `hidden` [R, D] and `attention` [R, S] belong to the last step: the state that predicted, and how the last layer's
    heads, on average, looked at the source (None unless the decoder is asked for it).
    Whoever calls a method gives the old state up.
    """

    cache: Cache
    sizes: Tensor
    counts: Tensor
    hidden: Tensor
    attention: Tensor | None = None

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Written":
        """Row r continues row `rows[r]` [R']; only `sentences` [N'] stay, in that order (None: all)."""
        self.cache = self.cache.reordered(rows, sentences)
        if sentences is not None:
            self.sizes, self.counts = self.sizes[sentences], self.counts[sentences]
        self.hidden = self.hidden[rows]
        self.attention = None if self.attention is None else self.attention[rows]
        return self

    def joined(self, other: "Written") -> "Written":
        """With the sentences of `other`, which have as many rows each, after those of this state."""
        self.cache = self.cache.joined(other.cache)
        self.sizes, self.counts = torch.cat((self.sizes, other.sizes)), torch.cat((self.counts, other.counts))
        self.hidden = torch.cat((self.hidden, other.hidden))
        if self.attention is not None and other.attention is not None:
            width = max(self.attention.shape[1], other.attention.shape[1])
            parts = (self.attention, other.attention)
            self.attention = torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in parts])
        return self


@dataclass(frozen=True)
class Decoder:
    """An encoder in evaluation mode, read one step at a time.

    `memory` is the format of keys and values (None: that of the hidden states); `attention` asks for attention weights.
    One that `continues` has a frame with the separator in the source, which comes before the text.
    """

    encoder: Encoder
    frame: Frame
    reading: Reading
    memory: torch.dtype | None = None
    attention: bool = False
    continues: bool = False

    @torch.no_grad()
    def start(self, sources: list[Ints]) -> tuple[Tensor, Written]:
        """Sources without special tokens give the logits [N, V] of the first target token, and the state."""
        state = self.encode(sources)
        if self.reading == "mask":
            return self._read(state, [self.frame.mask], kept=0)
        if self.frame.separator_in == "target":
            return self._read(state, [self.frame.separator], kept=1)
        return self._logits(state.hidden), state

    @torch.no_grad()
    def encode(self, sources: list[Ints]) -> Written:
        """Sources without special tokens give the state in which nothing was read after them."""
        return self._encoded([self._framed(source) for source in sources])

    @torch.no_grad()
    def step(self, tokens: Tensor, state: Written) -> tuple[Tensor, Written]:
        """The tokens [R] just chosen give the next tokens' logits [R, V] and the state after them."""
        state.counts = state.counts + 1
        if self.reading == "mask":
            return self._read(state, [tokens, self.frame.mask], kept=1)
        return self._read(state, [tokens], kept=1)

    def _framed(self, source: Ints) -> Ints:
        if self.reading == "next" and self.frame.separator_in == "target":
            return np.concatenate(([self.frame.start], self.frame.cut(source, special=1))).astype(np.int64)
        if self.continues:
            frame = self.frame
            return np.concatenate(([frame.start, frame.separator], frame.cut(source, special=2))).astype(np.int64)
        return self.frame.source(source)

    def _encoded(self, sources: list[Ints]) -> Written:
        """Framed sources give the state of sentences that have written nothing; `hidden` is that of the last token."""
        weight = self.encoder.head.bias
        longest = -(-max(map(len, sources)) // MULTIPLE) * MULTIPLE
        room = min(ROOM, self.frame.max_target + SPARE)
        cache = Cache.empty(
            self.encoder.config,
            len(sources),
            longest + room,
            dtype=self.memory or weight.dtype,
            device=weight.device,
        )
        sizes = torch.tensor([len(source) for source in sources], device=weight.device)
        last, first = [], 0
        for group in _groups(sources):
            rows = sizes[first : first + len(group)]
            hidden, layers = self._source_pass(group, rows)
            cache.fill(first, layers, rows)
            last.append(hidden[torch.arange(len(rows), device=rows.device), rows - 1])
            first += len(group)
        return Written(cache, sizes, torch.zeros_like(sizes), torch.cat(last))

    def _source_pass(self, sources: list[Ints], sizes: Tensor) -> tuple[Tensor, list[KeysValues]]:
        width = -(-max(map(len, sources)) // MULTIPLE) * MULTIPLE
        table = np.full((len(sources), width), self.frame.pad)
        for row, source in zip(table, sources, strict=True):
            row[: len(source)] = source
        ids = torch.from_numpy(table).to(sizes.device)
        positions = torch.arange(width, device=sizes.device).expand_as(ids)
        real = positions < sizes[:, None]
        time, segments = torch.zeros_like(ids), torch.full_like(ids, self.frame.source_segment)
        if self.continues:
            time, segments[:, 1:] = positions, self.frame.target_segment
        slots = Slots(torch.where(real, 0, PADDING), time, torch.full_like(ids, FOREVER))
        first = self.reading == "next" and self.frame.separator_in == "source"
        memory = self.memory or self.encoder.head.bias.dtype
        return self.encoder.read(
            ids, torch.where(real, positions, 0), segments, slots, memory=memory, last=first, ordered=self.continues
        )

    def _read(self, state: Written, tokens: list[Tensor | int], *, kept: int) -> tuple[Tensor, Written]:
        """Reads new tokens after those in the state and predicts at the last; the first `kept` enter the cache."""
        beams = state.cache.seen.shape[1]
        rows = len(state.sizes) * beams
        columns = [
            token if isinstance(token, Tensor) else torch.full((rows,), token, device=state.sizes.device)
            for token in tokens
        ]
        ids = torch.stack(columns, 1)  # [R, 1 or 2]
        base = self._position(state)[:, None] + torch.arange(1 - len(tokens), 1, device=ids.device)  # [N, 1 or 2]
        hidden, weights = self.encoder.step(
            ids,
            base.repeat_interleave(beams, 0),
            torch.full_like(ids, self.frame.target_segment),
            self._slots(ids, state.counts.repeat_interleave(beams)),
            state.cache,
            kept=kept,
            asked=1,
        )
        state.hidden = hidden[:, -1]
        if self.attention:
            state.attention = _on_source(weights, state.sizes, beams)
        return self._logits(state.hidden), state

    def _position(self, state: Written) -> Tensor:
        """Positions [N] of the last token read: the predicted one's [MASK], or the token before it."""
        closes_source = self.reading == "next" and self.frame.separator_in == "source"
        return state.sizes + state.counts - int(closes_source)

    def _slots(self, ids: Tensor, counts: Tensor) -> Slots:
        """Who sees the tokens of this step [R, 1 or 2]: the last of `ids` is a [MASK] unless `next` is read."""
        steps = ids.shape[1]
        if self.reading == "mask":
            time = 2 * counts[:, None] + torch.arange(2 - steps, 2, device=ids.device)
            until = torch.full_like(time, FOREVER)
            until[:, -1] = time[:, -1] + 1
        else:
            time = counts[:, None] + 1
            until = torch.full_like(time, FOREVER)
        return Slots(torch.zeros_like(ids), time, until)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.encoder.logits(hidden).float()


def _groups(sources: list[Ints]) -> Iterator[list[Ints]]:
    """Runs of sources that take `ENCODED` tokens at most when padded to their longest, one source at least."""
    group: list[Ints] = []
    longest = 0
    for source in sources:
        longest = max(longest, len(source))
        if group and (len(group) + 1) * longest > ENCODED:
            yield group
            group, longest = [], len(source)
        group.append(source)
    if group:
        yield group


def _on_source(weights: Tensor, sizes: Tensor, beams: int) -> Tensor:
    """Weights [N, A, B, C] of all heads give those on the source, on average: [R, S]."""
    width = int(sizes.max())
    real = torch.arange(width, device=sizes.device) < sizes[:, None, None]
    return torch.where(real, weights.mean(1)[..., :width], 0).flatten(0, 1).float()
