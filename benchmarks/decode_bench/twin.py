"""The slow twin: our model decoded as s2s-ft does it.

It keeps the hidden states of source and target for every beam, copies them when beams change places, and projects keys
and values of the whole history anew at each step, two slots a step ([previous, MASK]). Its outputs are ours.

Shapes: N sentences, R rows, T tokens of the history, Q new tokens, D hidden width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decode_bench.ours import FOLDER, FRAME, decoded
from decode_bench.work import Engine, Output, Work
from unilmctl.model import Encoder
from unilmctl.rows import Frame
from unilmctl.visibility import FOREVER, PADDING, Slots, stack, visible
from unilmctl.weights import load_model


class SlowTwin:
    """The twin as an engine."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        torch.set_num_threads(engine.threads)
        encoder, _ = load_model(folder / FOLDER)
        self.twin = Twin(encoder, FRAME)

    def decode(self, work: Work) -> list[Output]:
        """Outputs of exactly `work.tokens` tokens, the end counted."""
        return decoded(self.twin.start, self.twin.step, work.sources(), work.tokens, work.beam)


@dataclass(frozen=True)
class History:
    """The state of R rows: hidden states [R, T, D] of every layer, the tokens' slots, source sizes [R]."""

    hidden: list[Tensor]
    slots: Slots
    sizes: Tensor
    count: int = 0

    def reordered(self, rows: Tensor, _sentences: Tensor | None = None) -> "History":
        """Everything is copied, the source with it."""
        kept = [layer[rows] for layer in self.hidden]
        return History(kept, Slots(*(part[rows] for part in self.slots)), self.sizes[rows], self.count)

    def joined(self, other: "History") -> "History":
        """Rows of the same age and width, after these."""
        hidden = [torch.cat(pair) for pair in zip(self.hidden, other.hidden, strict=True)]
        slots = Slots(*(torch.cat(pair) for pair in zip(self.slots, other.slots, strict=True)))
        return History(hidden, slots, torch.cat((self.sizes, other.sizes)), self.count)


@dataclass(frozen=True)
class Twin:
    """Called like `unilmctl.decoding.Decoder`."""

    encoder: Encoder
    frame: Frame

    @torch.no_grad()
    def start(self, sources: list[np.ndarray]) -> tuple[Tensor, History]:
        """As `Decoder.start`."""
        framed = [self.frame.source(source) for source in sources]
        sizes = torch.tensor([len(source) for source in framed])
        ids = torch.zeros(len(framed), int(sizes.max()), dtype=torch.long)
        for row, source in zip(ids, framed, strict=True):
            row[: len(source)] = torch.from_numpy(source)
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        real = positions < sizes[:, None]
        slots = Slots(torch.where(real, 0, PADDING), torch.zeros_like(ids), torch.full_like(ids, FOREVER))
        segments = torch.full_like(ids, self.frame.source_segment)
        layers, width = len(self.encoder.layers), self.encoder.config.hidden
        none = History([torch.zeros(len(ids), 0, width)] * layers, slots.select(slice(0, 0)), sizes)
        _, state = self._read(none, ids, positions, segments, slots, keep=ids.shape[1])
        return self._predict(state, [torch.full((len(ids),), self.frame.mask)], keep=0)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: History) -> tuple[Tensor, History]:
        """As `Decoder.step`."""
        masks = torch.full_like(tokens, self.frame.mask)
        return self._predict(replace(state, count=state.count + 1), [tokens, masks], keep=1)

    def _predict(self, state: History, columns: list[Tensor], *, keep: int) -> tuple[Tensor, History]:
        ids = torch.stack(columns, 1)
        positions = (state.sizes + state.count)[:, None] + torch.arange(1 - len(columns), 1)
        time = torch.tensor([2 * state.count, 2 * state.count + 1])[-len(columns) :].expand_as(ids)
        until = torch.tensor([FOREVER, 2 * state.count + 2])[-len(columns) :].expand_as(ids)
        slots = Slots(torch.zeros_like(ids), time, until)
        segments = torch.full_like(ids, self.frame.target_segment)
        hidden, grown = self._read(state, ids, positions, segments, slots, keep=keep)
        return self.encoder.logits(hidden[:, -1]), grown

    def _read(
        self, state: History, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, *, keep: int
    ) -> tuple[Tensor, History]:
        keys = stack([state.slots, slots])
        mask = visible(slots, keys)[:, None]
        hidden = self.encoder.embeddings(ids, positions, segments)
        end = keys.time.shape[1] - ids.shape[1] + keep
        histories = []
        for layer, past in zip(self.encoder.layers, state.hidden, strict=True):
            history = torch.cat((past, hidden), 1)
            histories.append(history[:, :end])
            hidden = _layer(layer, hidden, history, mask)
        return hidden, History(histories, keys.select(slice(0, end)), state.sizes, state.count)


def _layer(layer: nn.Module, hidden: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """One layer for new tokens [R, Q, D] over the history [R, T, D], whose keys and values are projected here."""
    attention = layer.attention
    width, heads = hidden.shape[2], attention.heads
    weight, bias = attention.qkv.weight, attention.qkv.bias

    def split(values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], heads, width // heads).transpose(1, 2)

    query = split(functional.linear(hidden, weight[:width], bias[:width]))
    key = split(functional.linear(history, weight[width : 2 * width], bias[width : 2 * width]))
    value = split(functional.linear(history, weight[2 * width :], bias[2 * width :]))
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return layer.feedforward(attention.finish(hidden, mixed.transpose(1, 2)))
