"""Gaps of unknown length, written one after another behind the text that they are missing from (GLM's rows).

The text, with one [MASK] for each gap, is read once. A gap of one token at least is then read as [CLS] y1 ... yn and
predicted as y1 ... yn [SEP], at the position of its [MASK] and at inner positions 1 to n + 1, from cached keys and
values of the text and of all that was written into the gaps before. To a search the gaps of a line are one output:
`Spans.following` ends a gap that is not the last one, the separator the last; both stand for the model's separator, and
cost what it costs.

Shapes: N sentences, B beams a sentence, R = N x B rows in sentence-major order, T tokens of a text, K gaps, V
vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.model import Cache, Encoder
from unilmctl.rows import Frame, Ints
from unilmctl.visibility import FOREVER, PADDING, Slots

ROOM = 32
"""Columns that a cache begins with beside those of the text."""


@dataclass
class Spanned:
    """What R rows have written: their cache, the positions [N, K] of gaps and how many there are [N], and tokens read.

    `gap` [R] is the one that is being written, `inner` [R] the place in it that is predicted, from 1 on.
    Whoever calls a method gives the old state up.
    """

    cache: Cache
    places: Tensor
    gaps: Tensor
    read: Tensor
    gap: Tensor
    inner: Tensor

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Spanned":
        """Row r continues row `rows[r]` [R']; only `sentences` [N'] stay, in that order (None: all)."""
        self.cache = self.cache.reordered(rows, sentences)
        if sentences is not None:
            self.places, self.gaps, self.read = (part[sentences] for part in (self.places, self.gaps, self.read))
        self.gap, self.inner = self.gap[rows], self.inner[rows]
        return self

    def joined(self, other: "Spanned") -> "Spanned":
        """With the sentences of `other`, which have as many rows each, after those of this state."""
        width = max(self.places.shape[1], other.places.shape[1])
        places = [functional.pad(one, (0, width - one.shape[1])) for one in (self.places, other.places)]
        return Spanned(
            self.cache.joined(other.cache),
            torch.cat(places),
            torch.cat((self.gaps, other.gaps)),
            torch.cat((self.read, other.read)),
            torch.cat((self.gap, other.gap)),
            torch.cat((self.inner, other.inner)),
        )


@dataclass(frozen=True)
class Spans:
    """An encoder in evaluation mode that writes into each gap at most `longest` tokens."""

    encoder: Encoder
    frame: Frame
    longest: int

    @property
    def following(self) -> int:
        """What ends a gap after which there is another."""
        return self.frame.vocabulary

    @property
    def rest(self) -> int:
        """What cannot be, and is never to be chosen: the end of an empty gap, more tokens in a full one."""
        return self.frame.vocabulary + 1

    @torch.no_grad()
    def start(self, texts: Sequence[Ints]) -> tuple[Tensor, Spanned]:
        """Texts with special tokens and gaps [T] give the logits [N, V + 2] of their first tokens, and the state."""
        width, device = max(map(len, texts)), self.encoder.head.bias.device
        table = np.full((len(texts), width), self.frame.pad)
        for row, text in zip(table, texts, strict=True):
            row[: len(text)] = text
        ids = torch.from_numpy(table).to(device)
        sizes = torch.tensor([len(text) for text in texts], device=device)
        positions = torch.arange(width, device=device).expand_as(ids)
        document = torch.where(positions < sizes[:, None], 0, PADDING)
        slots = Slots(document, torch.zeros_like(ids), torch.full_like(ids, FOREVER))
        segments = torch.full_like(ids, self.frame.source_segment)
        _, layers = self.encoder(ids, positions, segments, slots, inner=torch.zeros_like(ids))
        weight = self.encoder.head.bias
        cache = Cache.empty(self.encoder.config, len(ids), width + ROOM, dtype=weight.dtype, device=device)
        cache.fill(0, layers, sizes)
        masks = (ids == self.frame.mask) & (document != PADDING)
        gaps = masks.sum(1)
        places = masks.sort(dim=1, descending=True, stable=True).indices[:, : int(gaps.max())]
        ones = torch.ones_like(gaps)
        state = Spanned(cache, places, gaps, torch.zeros_like(gaps), torch.zeros_like(gaps), ones)
        return self._read(torch.full_like(gaps, self.frame.start), state), state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: Spanned) -> tuple[Tensor, Spanned]:
        """The tokens [R] just chosen give the logits [R, V + 2] of the next ones and the state after them."""
        over = tokens == self.following
        state.gap = state.gap + over
        state.inner = torch.where(over, 1, state.inner + 1)
        # What an impossible output holds need not be a token.
        ids = torch.where(over, self.frame.start, tokens.clamp(max=self.frame.vocabulary - 1))
        return self._read(ids, state), state

    def _read(self, ids: Tensor, state: Spanned) -> Tensor:
        """Reads one more token [R] of every row; the logits [R, V + 2] after it."""
        beams = len(ids) // len(state.gaps)
        state.read = state.read + 1
        place = state.gap.clamp(max=state.places.shape[1] - 1)[:, None]
        time = state.read.repeat_interleave(beams)[:, None]
        hidden, _ = self.encoder.step(
            ids[:, None],
            state.places.repeat_interleave(beams, 0).gather(1, place),
            torch.full_like(time, self.frame.source_segment),
            Slots(torch.zeros_like(time), time, torch.full_like(time, FOREVER)),
            state.cache,
            kept=1,
            asked=1,
            inner=state.inner.clamp(max=self.longest + 1)[:, None],
        )
        last = state.gap >= state.gaps.repeat_interleave(beams) - 1
        logits = self.encoder.logits(hidden[:, -1]).float()[:, : self.frame.vocabulary]
        return self._ending(logits, last, state.inner)

    def _ending(self, logits: Tensor, last: Tensor, inner: Tensor) -> Tensor:
        """Logits [R, V] with what ends a gap at `inner` [R], the `last` [R] one or not, and with what cannot be."""
        never = torch.full_like(logits[:, 0], float("-inf"))
        empty, full = inner == 1, inner > self.longest
        stop = logits[:, self.frame.separator].clone()
        logits[:, self.frame.separator] = never
        rest = torch.where(empty, stop, torch.where(full, logits.logsumexp(1), never))
        logits[full] = float("-inf")
        logits[:, self.frame.separator] = torch.where(last & ~empty, stop, never)
        return torch.cat((logits, torch.where(last | empty, never, stop)[:, None], rest[:, None]), 1)
