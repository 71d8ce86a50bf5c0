"""The loop: a generator of steps.

A step is: take the batches, run each forward and backward, clip, update. Its loss is divided by the labels of the
whole step, so accumulated batches give the same step as one large batch, and so do processes that share them. Dropout
is seeded by (seed, step, batch): no random state has to be saved for training to go on as if it had never stopped.

Shapes: B rows, T tokens, N labels, D hidden width.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from unilmctl.errors import NumericError
from unilmctl.model import Encoder
from unilmctl.model.memory import keep_freed_memory
from unilmctl.rows import LANGUAGE_MODEL, Batch
from unilmctl.training.distillation import Teacher
from unilmctl.training.distributed import ALONE, Piece, Processes
from unilmctl.training.feed import BEGINNING, Feed, Place, Position
from unilmctl.training.loss import chunked_loss, smoothed_loss, spent_loss
from unilmctl.training.optimizer import TrainOptions, learning_rate
from unilmctl.visibility import Slots


class Step(NamedTuple):
    """What one step did. `number` counts from 1; `after` is where the next step begins.

    `loss` is per label, smoothing included; `tokens` are real ones, `padded_tokens` with the padding; `skipped` says
    that loss or gradient was no number and the weights were left alone.
    """

    number: int
    loss: float
    labels: int
    tokens: int
    padded_tokens: int
    learning_rate: float
    gradient_norm: float
    seconds: float
    skipped: bool
    after: Position


class Part(NamedTuple):
    """What a process does at a time: a batch or some rows of it, and what its dropout is drawn from.

    One that is not `counted` stands in where there are fewer rows than parts: its loss counts nothing.
    """

    batch: Batch
    key: tuple[int, ...]
    counted: bool


def train(
    encoder: Encoder,
    optimizer: torch.optim.Optimizer,
    feed: Feed[Any],
    options: TrainOptions,
    *,
    start: Position = BEGINNING,
    stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
    teacher: Teacher | None = None,
) -> Iterator[Step]:
    """Trains from `start` to `options.steps`, yielding every step when its update is done.

    `stop` is asked before every batch; when it says yes, training ends and an unfinished step leaves no trace. Between
    two steps the caller may do with the encoder what it likes. Processes yield the same steps, and must agree on what
    `stop` says. NumericError when `options.skip_budget` is used up.
    """
    keep_freed_memory(all_sizes=True)
    stream, at = feed.places(start), start
    while at.step < options.steps and not stop():
        began = time.perf_counter()
        places = list(islice(stream, options.accumulate))
        parts = [_part(feed, places[piece.batch], piece) for piece in processes.dealt(len(places))]
        labels, tokens, padded_tokens = (int(count) for count in processes.total(*_counts(parts)))
        encoder.train()
        optimizer.zero_grad(set_to_none=True)
        total = _accumulate(encoder, parts, options, step=at.step, labels=labels, stop=stop, teacher=teacher)
        if total is None:
            return
        (total,) = processes.total(total)
        processes.add_gradients(encoder)
        rate = learning_rate(options, at.step)
        norm = _gradient_norm(encoder, options.clip)
        skipped = not (math.isfinite(total) and math.isfinite(norm))
        at = Position(at.step + 1, *places[-1].after, at.skipped + skipped)
        if skipped:
            _check_budget(at, options)
        else:
            _update(optimizer, rate)
        yield Step(
            number=at.step,
            loss=total / labels,
            labels=labels,
            tokens=tokens,
            padded_tokens=padded_tokens,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=time.perf_counter() - began,
            skipped=skipped,
            after=at,
        )


@torch.no_grad()
def evaluate_loss(
    encoder: Encoder, batches: Iterable[Batch], options: TrainOptions, *, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """The loss per label over `batches`, without label smoothing and dropout; None when `stop` said yes."""
    encoder.eval()
    total, labels = 0.0, 0
    for batch in batches:
        if stop():
            return None
        total += float(_batch_loss(encoder, batch, smoothing=0.0, precision=options.precision))
        labels += len(batch.labels[LANGUAGE_MODEL].targets)
    return total / max(labels, 1)


def _part(feed: Feed[Any], place: Place, piece: Piece) -> Part:
    mine = piece.of(place.indices)
    return Part(feed.batch(place.epoch, mine if len(mine) else place.indices[:1]), piece.key, bool(len(mine)))


def _counts(parts: list[Part]) -> tuple[int, int, int]:
    """Labels, tokens and tokens with padding of the parts that count."""
    batches = [part.batch for part in parts if part.counted]
    labels = sum(len(batch.labels[LANGUAGE_MODEL].targets) for batch in batches)
    return labels, sum(batch.tokens for batch in batches), sum(batch.ids.numel() for batch in batches)


def _accumulate(
    encoder: Encoder,
    parts: list[Part],
    options: TrainOptions,
    *,
    step: int,
    labels: int,
    stop: Callable[[], bool],
    teacher: Teacher | None,
) -> float | None:
    """Adds up the gradients of the parts and returns their summed loss; None when `stop` said yes."""
    device = encoder.head.bias.device
    encoder.recompute = options.checkpoint_activations
    total = torch.zeros((), device=device)
    for batch, key, counted in parts:
        if stop():
            return None
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_dropout_seed(options.seed, step, key))
            scale = counted / labels
            total += counted * _batch_loss(
                encoder,
                batch,
                smoothing=options.label_smoothing,
                precision=options.precision,
                scale=scale,
                teacher=teacher,
            )
    return float(total)


def _batch_loss(
    encoder: Encoder,
    batch: Batch,
    *,
    smoothing: float,
    precision: str,
    scale: float | None = None,
    teacher: Teacher | None = None,
) -> Tensor:
    """The summed loss of a batch; with a `scale` also the gradient of scale * loss."""
    device = encoder.head.bias.device
    slots = Slots(*(part.to(device) for part in batch.slots))
    wanted = batch.labels[LANGUAGE_MODEL]

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        with _autocast(device, precision):
            logits = encoder.logits(hidden)
        compute = smoothed_loss if scale is None else spent_loss
        return compute(logits, targets, smoothing=smoothing, pad=encoder.config.pad)

    places = [part.to(device) for part in (batch.ids, batch.positions, batch.segments)]
    with _autocast(device, precision):
        hidden, _ = encoder(*places, slots, wanted.slots.to(device))  # [N, D]
    targets = wanted.targets.to(device)
    if teacher is None:
        return chunked_loss(loss_of, hidden, targets, scale=scale)
    with _autocast(device, precision):
        states = teacher.states(batch)  # [N, D] of the teacher

    def taught_loss_of(hidden: Tensor, labels: Tensor) -> Tensor:
        """Losses of the labels with these numbers."""
        with _autocast(device, precision):
            logits, taught = encoder.logits(hidden), teacher.logits(states[labels])
        losses = smoothed_loss(logits, targets[labels], smoothing=smoothing, pad=encoder.config.pad)
        return teacher.mixed(losses, logits, taught).masked_fill(targets[labels] == encoder.config.pad, 0.0)

    return chunked_loss(taught_loss_of, hidden, torch.arange(len(targets), device=device), scale=scale)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _gradient_norm(encoder: Encoder, clip: float | None) -> float:
    """The norm of the whole gradient before it is clipped to `clip`."""
    norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), math.inf if clip is None else clip)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _dropout_seed(seed: int, step: int, key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence((seed, step, *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check_budget(at: Position, options: TrainOptions) -> None:
    if at.skipped > options.skip_budget:
        raise NumericError(
            f"step {at.step}: loss or gradient is not a number, as in {at.skipped - 1} steps before",
            "lower finetune.learning_rate, lengthen finetune.warmup, or set finetune.precision: float32",
        )
