"""A model and a feed so small that a step takes milliseconds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unilmctl.model import Encoder, ModelConfig
from unilmctl.objectives import build
from unilmctl.rows import Example, Frame, Ints
from unilmctl.training import Feed, TrainOptions, build_optimizer

FRAME = Frame(pad=0, start=2, separator=3, mask=4, vocabulary=24, max_source=12, max_target=8)


SIZES = {"vocabulary": 24, "hidden": 16, "layers": 2, "heads": 2, "feedforward": 32, "positions": 24}


def tiny_encoder(*, dropout: float = 0.0, seed: int = 1, **switches: Any) -> Encoder:
    rates = {"dropout": dropout, "attention_dropout": dropout}
    encoder = Encoder(ModelConfig(**{**SIZES, **rates, **switches}))
    encoder.initialize(torch.Generator().manual_seed(seed))
    return encoder


def examples(count: int) -> list[Example]:
    random = np.random.default_rng(5)
    return [Example(random.integers(5, 24, 4), random.integers(5, 24, 3)) for _ in range(count)]


def feed_of(count: int = 12, *, size: int = 4, objective: str = "pseudo", seed: int = 1) -> Feed:
    """Examples in batches of `size`, in another order every epoch."""

    def order(epoch: int) -> list[Ints]:
        shuffled = np.random.default_rng((seed, epoch)).permutation(count)
        return [shuffled[start : start + size] for start in range(0, count, size)]

    return Feed(examples(count), build(objective), FRAME, order, seed)


def options_of(**values: Any) -> TrainOptions:
    return TrainOptions(**{"steps": 6, "learning_rate": 1e-2, "warmup": 2, **values})


def optimizer_of(encoder: Encoder, options: TrainOptions) -> torch.optim.AdamW:
    return build_optimizer(encoder, options)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def after(calls: int) -> Callable[[], bool]:
    """Says yes from the call number `calls` on."""
    made = 0

    def stop() -> bool:
        nonlocal made
        made += 1
        return made > calls

    return stop
