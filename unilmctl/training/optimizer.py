"""AdamW, its parameter groups, and what the learning rate does over the steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from unilmctl.model import Encoder
from unilmctl.training.freezing import frozen


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained; the names and defaults are those of a recipe's `finetune` section.

    `skip_budget` is the number of steps whose loss or gradient may be no number before training gives up.
    `label_smoothing` is that of heads that choose words, `class_smoothing` that of heads that choose classes and tags.
    `head_weights` are those of the heads' losses in a step's loss, 1 where none is said.
    """

    steps: int
    learning_rate: float = 7e-5
    schedule: str = "linear"
    warmup: int = 500
    label_smoothing: float = 0.1
    class_smoothing: float = 0.0
    weight_decay: float = 0.01
    clip: float | None = 1.0
    adam_epsilon: float = 1e-8
    adam_beta2: float = 0.999
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    freeze_embeddings: bool = False
    freeze: tuple[str, ...] = ()
    checkpoint_activations: bool = False
    block_masks: bool = False
    seed: int = 1
    skip_budget: int = 20
    head_weights: Mapping[str, float] = field(default_factory=dict)


def _linear(done: float, warmup: int, step: int) -> float:
    return 1.0 - done


def _cosine(done: float, warmup: int, step: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _inverse_sqrt(done: float, warmup: int, step: int) -> float:
    return math.sqrt(max(warmup, 1) / max(step, 1))


def _constant(done: float, warmup: int, step: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float, int, int], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "constant": _constant,
}
"""Share of the highest learning rate after the warm-up, from (share of the remaining steps done, warm-up, step)."""


def learning_rate(options: TrainOptions, step: int) -> float:
    """The learning rate of a step, counted from 0: up from 0 over the warm-up, then as the schedule says."""
    if step < options.warmup:
        return options.learning_rate * step / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.learning_rate * SCHEDULES[options.schedule](done, options.warmup, step)


def build_optimizer(encoder: Encoder, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW over the encoder's parameters, in float32; no decay on biases (relative ones too) and norms.

    Frozen parameters take no part: those that `freeze` names, and with `freeze_embeddings` the word, position and
    segment tables and their norm, which also freezes the output matrix that is tied to the words. RecipeError for a
    pattern that names nothing.
    """
    freeze(encoder, [*(("embeddings",) if options.freeze_embeddings else ()), *options.freeze])
    trained = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    decayed = [parameter for name, parameter in trained.items() if is_decayed(name, parameter)]
    others = [parameter for name, parameter in trained.items() if not is_decayed(name, parameter)]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = (0.9, options.adam_beta2)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.adam_epsilon, fused=True)


def freeze(encoder: Encoder, patterns: Sequence[str]) -> None:
    """Takes the parameters that `patterns` mean out of training."""
    parameters = dict(encoder.named_parameters())
    for name in frozen(parameters, patterns):
        parameters[name].requires_grad = False


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Matrices decay; vectors (biases and norms) and the relative position bias do not."""
    return parameter.ndim > 1 and not name.startswith("relative.")
