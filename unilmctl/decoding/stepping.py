"""One step after another, from cached keys and values.

The source of each sentence is encoded once, and its keys and values are stored once, whatever the number of beams. A
step then reads, in one of two ways,

- `mask` (models trained with `pseudo` or `masked`): the previous token and a [MASK] after it. Step i writes the content
  token i-1 at time 2i and reads the prediction of token i at a [MASK] that lives at time 2i+1 only, so that the content
  token's column stays in the cache and the [MASK]'s leaves it.
- `next` (`causal`): the previous token alone, which predicts the token after it.

Shapes: N sentences, R rows (beams of all sentences, in sentence-major order), S source tokens with special ones, V
vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unilmctl.model import Block, Cache, Encoder
from unilmctl.rows import Frame, Ints
from unilmctl.visibility import FOREVER, PADDING, Slots

Reading = Literal["mask", "next"]


@dataclass(frozen=True)
class Written:
    """The state of R rows: their cache, the source lengths [N], and how many tokens every row has written."""

    cache: Cache
    sizes: Tensor
    count: int = 0

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Written":
        """Row r continues row `rows[r]` [R']; only `sentences` [N'] stay (None: all)."""
        if sentences is None:
            return replace(self, cache=self.cache.reordered(rows))
        return replace(self, cache=self.cache.selected(sentences, rows), sizes=self.sizes[sentences])


@dataclass(frozen=True)
class Decoder:
    """An encoder in evaluation mode, read one step at a time."""

    encoder: Encoder
    frame: Frame
    reading: Reading

    @torch.no_grad()
    def start(self, sources: list[Ints]) -> tuple[Tensor, Written]:
        """Sources without special tokens give the logits [N, V] of the first target token, and the state."""
        framed = [self._framed(source) for source in sources]
        hidden, cache, sizes = self._encoded(framed)
        state = Written(cache, sizes)
        if self.reading == "mask":
            return self._read(state, [self.frame.mask], kept=0)
        if self.frame.separator_in == "target":
            return self._read(state, [self.frame.separator], kept=1)
        return self._logits(hidden[torch.arange(len(sizes)), sizes - 1]), state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: Written) -> tuple[Tensor, Written]:
        """The tokens [R] just chosen give the next tokens' logits [R, V] and the state after them."""
        state = replace(state, count=state.count + 1)
        if self.reading == "mask":
            return self._read(state, [tokens, self.frame.mask], kept=1)
        return self._read(state, [tokens], kept=1)

    def _framed(self, source: Ints) -> Ints:
        if self.reading == "next" and self.frame.separator_in == "target":
            return np.concatenate(([self.frame.start], self.frame.cut(source, special=1))).astype(np.int64)
        return self.frame.source(source)

    def _encoded(self, sources: list[Ints]) -> tuple[Tensor, Cache, Tensor]:
        """Framed sources give hidden states [N, S, D], the cache that holds them, and their lengths [N]."""
        sizes = torch.tensor([len(source) for source in sources])
        ids = torch.full((len(sources), int(sizes.max())), self.frame.pad)
        for row, source in zip(ids, sources, strict=True):
            row[: len(source)] = torch.from_numpy(source)
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        real = positions < sizes[:, None]
        positions = torch.where(real, positions, 0)
        slots = Slots(torch.where(real, 0, PADDING), torch.zeros_like(ids), torch.full_like(ids, FOREVER))
        hidden, block = self.encoder(ids, positions, torch.full_like(ids, self.frame.source_segment), slots)
        return hidden, Cache(block), sizes

    def _read(self, state: Written, tokens: list[Tensor | int], *, kept: int) -> tuple[Tensor, Written]:
        """Reads new tokens after those in the state and predicts at the last; the first `kept` enter the cache."""
        sentences = len(state.sizes)
        rows = next((len(token) for token in tokens if isinstance(token, Tensor)), sentences)
        columns = [token if isinstance(token, Tensor) else torch.full((rows,), token) for token in tokens]
        ids = torch.stack(columns, 1)  # [R, 1 or 2]
        base = self._position(state) + torch.arange(1 - len(tokens), 1)  # [N, 1 or 2]
        positions = base.repeat_interleave(rows // sentences, 0)
        hidden, fresh = self.encoder(
            ids, positions, torch.full_like(ids, self.frame.target_segment), self._slots(ids, state.count), state.cache
        )
        block: Block = fresh.columns(slice(0, kept))
        cache = state.cache.extended(block) if kept else state.cache
        return self._logits(hidden[:, -1]), replace(state, cache=cache)

    def _position(self, state: Written) -> Tensor:
        """Position [N, 1] of the last token read: the predicted one's [MASK], or the token before it."""
        closes_source = self.reading == "next" and self.frame.separator_in == "source"
        return (state.sizes + (state.count - closes_source))[:, None]

    def _slots(self, ids: Tensor, count: int) -> Slots:
        """Who sees the tokens of this step [R, 1 or 2]: the last of `ids` is a [MASK] unless `next` is read."""
        steps = ids.shape[1]
        if self.reading == "mask":
            time = torch.tensor([2 * count, 2 * count + 1])[-steps:]
            until = torch.tensor([FOREVER, 2 * count + 2])[-steps:]
        else:
            time, until = torch.tensor([count + 1]), torch.tensor([FOREVER])
        return Slots(torch.zeros_like(ids), time.expand_as(ids), until.expand_as(ids))

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.encoder.logits(hidden).float()
