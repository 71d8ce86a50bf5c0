"""The model trained as s2s-ft does it, written anew: the slow twin.

Every example is padded to source + 2 x target maximum; logits are computed at every target slot, and the smoothed
target is a matrix as large as they are.
"""

import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional

from train_bench.process import timed
from train_bench.work import (
    FEEDFORWARD,
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTHS,
    MASK,
    PAD,
    SEPARATOR,
    START,
    VOCABULARY,
    Done,
    Engine,
    Lengths,
    Pair,
)

SMOOTHING = 0.1


class Layer(nn.Module):
    """A BERT layer with three projections and attention written out."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))
        self.inner, self.outer = nn.Linear(HIDDEN, FEEDFORWARD), nn.Linear(FEEDFORWARD, HIDDEN)
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN, eps=1e-12) for _ in range(2))
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] under a mask that is added [B, 1, T, T]."""
        query, key, value = (
            project(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(HIDDEN // HEADS) + mask
        mixed = (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2).flatten(2)
        hidden = self.norms[0](self.dropout(self.output(mixed)) + hidden)
        return self.norms[1](self.dropout(self.outer(functional.gelu(self.inner(hidden)))) + hidden)


class Model(nn.Module):
    """Embeddings, layers, head; the output matrix is that of the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.segments = (nn.Embedding(size, HIDDEN) for size in (VOCABULARY, 512 + 128, 2))
        self.norm, self.head_norm = (nn.LayerNorm(HIDDEN, eps=1e-12) for _ in range(2))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.dense = nn.Linear(HIDDEN, HIDDEN)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))
        self.dropout = nn.Dropout(0.1)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor, positions: Tensor, segments: Tensor, mask: Tensor, first: int) -> Tensor:
        """Logits [B, T - first, V] of the slots from `first` on."""
        hidden = self.dropout(self.norm(self.words(ids) + self.positions(positions) + self.segments(segments)))
        for layer in self.layers:
            hidden = layer(hidden, mask)
        hidden = self.head_norm(functional.gelu(self.dense(hidden[:, first:])))
        return functional.linear(hidden, self.words.weight, self.bias)


class SlowTwin:
    """The model and its optimiser."""

    def __init__(self, engine: Engine) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(engine.threads)
        self.engine, self.model = engine, Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=7e-5, foreach=False, fused=False)

    def step(self, lengths: str, examples: int, place: float) -> Done:
        """One step on examples drawn at random."""
        limits = LENGTHS[lengths]
        chosen = random.Random(int(100 * place)).sample(limits.pairs(), examples)
        inputs, targets = padded(chosen, limits)

        def work() -> None:
            self.optimizer.zero_grad()
            loss(self.model(*inputs, limits.max_source + limits.max_target), targets).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

        return Done(timed(self.engine, work), sum(len(source) + len(target) + 3 for source, target in chosen))


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """KL divergence from the smoothed target, a matrix [B x T, V], averaged over what is no padding."""
    flat, wanted = logits.float().log_softmax(-1).flatten(0, 1), targets.flatten()
    smoothed = torch.full((VOCABULARY,), SMOOTHING / (VOCABULARY - 2))
    smoothed[PAD] = 0
    matrix = smoothed.repeat(len(wanted), 1).scatter_(1, wanted[:, None], 1 - SMOOTHING)
    matrix.masked_fill_((wanted == PAD)[:, None], 0)
    divergence = functional.kl_div(flat, matrix, reduction="none").sum(-1)
    return (divergence * (wanted != PAD)).sum() / (wanted != PAD).sum()


def padded(pairs: list[Pair], limits: Lengths) -> tuple[tuple[Tensor, ...], Tensor]:
    """Ids, positions, segments [B, S + 2T], the mask [B, 1, S + 2T, S + 2T], and targets [B, T], 0 for padding."""
    source, target = limits.max_source, limits.max_target
    width = source + 2 * target
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    targets = torch.zeros(len(pairs), target, dtype=torch.long)
    mask = torch.full((len(pairs), 1, width, width), -10000.0)
    for row, (left, right) in enumerate(pairs):
        words, answer = [START, *left, SEPARATOR], [*right, SEPARATOR]
        read, written = len(words), len(answer)
        ids[row, :read] = torch.tensor(words)
        ids[row, source : source + written] = torch.tensor(answer)
        ids[row, source + target : source + target + written] = MASK
        targets[row, :written] = torch.tensor(answer)
        mask[row, 0, :, :read] = 0
        before = torch.zeros(target, target).masked_fill_(torch.ones(target, target).triu(1).bool(), -10000.0)
        mask[row, 0, source : source + target, source : source + target] = before
        strictly = torch.zeros(target, target).masked_fill_(torch.ones(target, target).triu().bool(), -10000.0)
        mask[row, 0, source + target :, source : source + target] = strictly
        mask[row, 0, source + target :, source + target :].fill_diagonal_(0.0)
    after = torch.arange(target) + source
    positions = torch.cat((torch.arange(source), after, after)).expand(len(pairs), -1)
    segments = (torch.arange(width) >= source).long().expand(len(pairs), -1)
    return (ids, positions, segments, mask), targets
