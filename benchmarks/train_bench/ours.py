"""unilmctl's training loop, on batches of its own making."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
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
)
from unilmctl.data.batching import batches
from unilmctl.model import Encoder, ModelConfig
from unilmctl.objectives import build, row_length
from unilmctl.rows import LANGUAGE_MODEL, Batch, Example, Frame, Ints, Targets
from unilmctl.training import Feed, TrainOptions, build_optimizer, train
from unilmctl.visibility import FOREVER, PADDING, Slots

PACKED = 640
"""Tokens of a row that holds several examples."""


@dataclass(frozen=True)
class FullLength(Feed):
    """Every row padded to the longest that the limits allow."""

    length: int = 0

    def batch(self, epoch: int, indices: Ints) -> Batch:
        """The rows of these examples."""
        made = super().batch(epoch, indices)
        width = made.ids.shape[1]

        def longer(tensor: Tensor, filler: int) -> Tensor:
            return functional.pad(tensor, (0, self.length - width), value=filler)

        labels = {
            head: Targets(part.slots // width * self.length + part.slots % width, part.targets)
            for head, part in made.labels.items()
        }
        slots = Slots(*(longer(part, filler) for part, filler in zip(made.slots, (PADDING, 0, FOREVER), strict=True)))
        ids, positions, segments = longer(made.ids, PAD), longer(made.positions, 0), longer(made.segments, 0)
        return Batch(ids, positions, segments, slots, labels)


class Ours:
    """The model, its optimiser, and the epoch of each distribution of lengths."""

    def __init__(self, engine: Engine) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(engine.threads)
        self.engine = engine
        self.encoder = Encoder(
            ModelConfig(
                vocabulary=VOCABULARY,
                hidden=HIDDEN,
                layers=LAYERS,
                heads=HEADS,
                feedforward=FEEDFORWARD,
                dropout=0.1,
                attention_dropout=0.1,
            )
        )
        self.encoder.initialize()
        self.options = TrainOptions(steps=1, warmup=0, precision=engine.precision)
        self.optimizer = build_optimizer(self.encoder, self.options)

    def step(self, lengths: str, examples: int, place: float) -> Done:
        """One step on the batch at `place` of an epoch in order of length, of about so many average `examples`."""
        feed, made = self._feed(LENGTHS[lengths], examples, place)
        batch = feed.batch(0, made)
        tokens = sum(len(one.source) + len(one.target) + 3 for one in (feed.examples[i] for i in made.tolist()))
        seconds = timed(self.engine, lambda: list(self._steps(feed)))
        return Done(seconds, tokens, batch.tokens, len(batch.labels[LANGUAGE_MODEL].targets))

    def _steps(self, feed: Feed) -> Iterator[object]:
        return train(self.encoder, self.optimizer, feed, self.options)

    def _feed(self, lengths: Lengths, examples: int, place: float) -> tuple[Feed, Ints]:
        pool, sources, targets = _pool(lengths)
        frame = Frame(
            pad=PAD,
            start=START,
            separator=SEPARATOR,
            mask=MASK,
            vocabulary=VOCABULARY,
            max_source=lengths.max_source,
            max_target=lengths.max_target,
        )

        def size(source: Ints, target: Ints) -> Ints:
            return row_length(self.engine.objective, source, target, frame)

        sizes = size(sources, targets)
        if self.engine.way == "padded by length":
            budget = int(examples * sizes.mean() * 1.02)
            epoch = batches(sources, targets, row_length=size, batch_tokens=budget, seed=1, epoch=0)
            chosen = sorted(epoch, key=lambda batch: int(sizes[batch].max()))[int(place * len(epoch))]
        else:
            chosen = np.random.default_rng(int(100 * place)).permutation(len(pool))[:examples]
        feed = Feed(pool, build(self.engine.objective), frame, lambda epoch: [chosen], 1)
        if self.engine.way == "packed":
            feed = replace(feed, pack=PACKED)
        if self.engine.way == "padded to the maximum":
            longest = int(size(np.array([10**6]), np.array([10**6]))[0])
            feed = FullLength(**vars(feed), length=longest)
        return feed, chosen


@cache
def _pool(lengths: Lengths) -> tuple[list[Example], Ints, Ints]:
    pairs = [(np.array(source), np.array(target)) for source, target in lengths.pairs()]
    sources, targets = (np.array([len(pair[side]) for pair in pairs]) for side in (0, 1))
    return [Example(*pair) for pair in pairs], sources, targets
