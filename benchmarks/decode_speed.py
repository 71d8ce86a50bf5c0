"""CPU time of cached decoding against its slow twin, which re-projects keys and values per beam and step.

The twin does what s2s-ft does: it keeps the hidden states of source and target for every beam, copies them when beams
change places, and projects keys and values of the whole history anew at each step. Both decode the same random
sentences with the same model of BERT-base size and the same search, and must find the same outputs.

    python benchmarks/decode_speed.py            8 sentences, all steps of both (about ten minutes)
    python benchmarks/decode_speed.py --quick    the twin runs few steps; the rest of its time is extrapolated
"""

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.decoding import Decoder, pack
from unilmctl.model import Encoder, ModelConfig
from unilmctl.rows import Frame
from unilmctl.search import Rules, beam_search
from unilmctl.visibility import FOREVER, PADDING, Slots, stack, visible

FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=30522, max_source=512)
GOALS = {128: 6.0, 448: 12.0}
BEAM, TOKENS, SENTENCES = 5, 32, 8
QUICK_STEPS = 3


@dataclass(frozen=True)
class History:
    """The twin's state of R rows: hidden states [R, T, D] of every layer, the tokens' slots and positions."""

    hidden: list[Tensor]
    slots: Slots
    positions: Tensor
    sizes: Tensor
    count: int = 0

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "History":
        """Everything is copied, the source with it."""
        kept = [layer[rows] for layer in self.hidden]
        slots = Slots(*(part[rows] for part in self.slots))
        return History(kept, slots, self.positions[rows], self.sizes[rows], self.count)


@dataclass(frozen=True)
class Twin:
    """Decoding as s2s-ft does it, over the project's own weights."""

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
        none = History([ids.new_zeros(len(ids), 0, 1)] * 12, slots.select(slice(0, 0)), positions[:, :0], sizes)
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
        time_ = torch.tensor([2 * state.count, 2 * state.count + 1])[-len(columns) :].expand_as(ids)
        until = torch.tensor([FOREVER, 2 * state.count + 2])[-len(columns) :].expand_as(ids)
        slots = Slots(torch.zeros_like(ids), time_, until)
        segments = torch.full_like(ids, self.frame.target_segment)
        hidden, grown = self._read(state, ids, positions, segments, slots, keep=keep)
        return self.encoder.logits(hidden[:, -1]), grown

    def _read(
        self, state: History, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, *, keep: int
    ) -> tuple[Tensor, History]:
        keys = stack([state.slots, slots])
        mask = visible(slots, keys)[:, None]
        hidden = self.encoder.embeddings(ids, positions, segments)
        histories = []
        for layer, past in zip(self.encoder.layers, state.hidden, strict=True):
            history = torch.cat((past.expand(-1, -1, hidden.shape[2]), hidden), 1)
            histories.append(history[:, : history.shape[1] - hidden.shape[1] + keep])
            hidden = _layer(layer, hidden, history, mask)
        end = keys.time.shape[1] - ids.shape[1] + keep
        kept_positions = torch.cat((state.positions, positions), 1)[:, :end]
        return hidden, History(histories, keys.select(slice(0, end)), kept_positions, state.sizes, state.count)


def _layer(layer: torch.nn.Module, hidden: Tensor, history: Tensor, mask: Tensor) -> Tensor:
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
    return layer.feedforward(attention.finish(hidden, mixed))


def base_model() -> Encoder:
    """Random weights of BERT-base size."""
    encoder = Encoder(ModelConfig(vocabulary=30522)).eval()
    encoder.initialize(torch.Generator().manual_seed(1))
    return encoder


def decode(engine: Decoder | Twin, sources: list[np.ndarray], tokens: int) -> tuple[list[list[int]], float, float]:
    """Outputs of exactly `tokens` tokens, CPU seconds of the start, and of all steps."""
    began = time.process_time()
    first, state = engine.start(sources)
    started = time.process_time()
    rules = Rules(end=FRAME.separator, max_length=tokens, min_length=tokens - 1)
    found = beam_search(first, state, engine.step, rules, beam=BEAM)
    return [best[0].ids for best in found], started - began, time.process_time() - started


def compare(encoder: Encoder, source: int, *, quick: bool, repeats: int) -> dict[str, object]:
    """One row of the result: CPU seconds of both for one source length, interleaved, medians."""
    random = np.random.default_rng(source)
    sources = [random.integers(10, 30000, source - 2) for _ in range(SENTENCES)]
    ours, twin = Decoder(pack(copy.deepcopy(encoder)), FRAME, "mask"), Twin(encoder, FRAME)
    steps = QUICK_STEPS if quick else TOKENS
    fast, slow = [], []
    for _ in range(repeats):
        outputs, start, rest = decode(ours, sources, TOKENS)
        fast.append(start + rest)
        same = decode(ours, sources, steps)[0] if quick else outputs
        theirs, start, rest = decode(twin, sources, steps)
        slow.append(start + rest * (TOKENS - 1) / (steps - 1))
        if theirs != same:
            raise SystemExit(f"source {source}: the outputs differ")
    mine, peer = statistics.median(fast), statistics.median(slow)
    name = f"CPU seconds, source {source}, {SENTENCES} sentences, beam {BEAM}, {TOKENS} tokens, float32, one thread"
    return {"name": name, "ours": mine, "peer": peer, "ratio": peer / mine, "goal": GOALS[source]}


def main() -> None:
    """Measures, prints the ratios, and fails when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="extrapolate the twin's time from a few steps")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; medians are compared")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = base_model()
    rows = []
    for source in GOALS:
        row = compare(encoder, source, quick=arguments.quick, repeats=arguments.repeats)
        rows.append(row)
        print(
            f"{row['name']}: ours {row['ours']:.1f}, twin {row['peer']:.1f}: x{row['ratio']:.1f} (goal {row['goal']})"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(any(row["ratio"] < row["goal"] for row in rows))


if __name__ == "__main__":
    main()
