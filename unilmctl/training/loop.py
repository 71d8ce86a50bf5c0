"""The loop: a generator of steps.

A step is: take the batches, run each forward and backward, clip, update. The loss of each head is divided by its labels
in the whole step, so accumulated batches give the same step as one large batch, and so do processes that share them.
Dropout is seeded by (seed, step, batch): no random state has to be saved for training to go on as if it had never
stopped.

Shapes: B rows, T tokens, N labels, D hidden width.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from unilmctl.errors import NumericError, ran_out_of_memory
from unilmctl.model import Encoder
from unilmctl.model.blocks import require_blocks
from unilmctl.model.memory import keep_freed_memory
from unilmctl.training.distillation import Teacher
from unilmctl.training.distributed import ALONE, Processes
from unilmctl.training.feed import BEGINNING, Feed, Position
from unilmctl.training.optimizer import TrainOptions, learning_rate
from unilmctl.training.parts import Part, below, part_of, require_several
from unilmctl.training.scoring import Key, Scoring, Tally, labels_of, score, step_loss
from unilmctl.training.sharding import is_sharded


class Step(NamedTuple):
    """What one step did. `number` counts from 1; `after` is where the next step begins.

    `loss` is per label, smoothing included, of several heads the weighted sum of theirs, which `tallies` has one by
    one; `labels` are those of all heads. `tokens` are real ones, `padded_tokens` with the padding; `skipped` says that
    loss or gradient was no number and the weights were left alone.
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
    tallies: dict[Key, Tally]


class Skipped(NamedTuple):
    """A step that left the weights alone: its figures, and which examples of which epoch it had, batch by batch."""

    number: int
    loss: float
    gradient_norm: float
    batches: list[tuple[int, list[int]]]
    tallies: dict[Key, Tally]


def _unseen(skipped: Skipped) -> None:
    """Nobody asks."""


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
    on_skip: Callable[[Skipped], None] = _unseen,
) -> Iterator[Step]:
    """Trains from `start` to `options.steps`, yielding every step when its update is done.

    `stop` is asked before every batch; when it says yes, training ends and an unfinished step leaves no trace. Between
    two steps the caller may do with the encoder what it likes. Processes yield the same steps, and must agree on what
    `stop` says. `on_skip` is told of every step whose loss or gradient was no number; NumericError when
    `options.skip_budget` of them are used up. What memory does not hold is done in smaller parts (see `parts`);
    OutOfMemory when that is one example.
    """
    keep_freed_memory(all_sizes=True)
    if options.block_masks:
        require_blocks(encoder.config, encoder.head.bias.device)
    stream, at = feed.places(start), start
    limit: int | None = None
    while at.step < options.steps and not stop():
        began = time.perf_counter()
        places = list(islice(stream, options.accumulate))
        pieces = processes.dealt(len(places))
        parts = below(limit, [part_of(feed, places[piece.batch], piece) for piece in pieces], feed)
        counts = _counts(encoder, parts, processes)
        encoder.train()
        work = Work(options, at.step, counts.labels, _asked(stop, len(pieces)), teacher)
        sums, limit = _accumulated(encoder, optimizer, feed, parts, work, limit)
        if sums is None:
            return
        tallies = _tallies(counts.labels, sums, processes)
        loss = step_loss(tallies, options.head_weights)
        processes.add_gradients(encoder)
        rate = learning_rate(options, at.step)
        norm = _gradient_norm(encoder, options.clip)
        skipped = not (math.isfinite(loss) and math.isfinite(norm))
        at = Position(at.step + 1, *places[-1].after, at.skipped + skipped)
        if skipped:
            on_skip(Skipped(at.step, loss, norm, [(one.epoch, one.indices.tolist()) for one in places], tallies))
            _check_budget(at, options)
        else:
            _update(optimizer, rate)
        yield _step(at, loss, counts, rate, norm, time.perf_counter() - began, tallies, skipped=skipped)


def _step(
    at: Position,
    loss: float,
    counts: "Counts",
    rate: float,
    norm: float,
    seconds: float,
    tallies: dict[Key, Tally],
    *,
    skipped: bool,
) -> Step:
    """What the step that ended at `at` did."""
    return Step(
        number=at.step,
        loss=loss,
        labels=counts.labels.total(),
        tokens=counts.tokens,
        padded_tokens=counts.padded_tokens,
        learning_rate=rate,
        gradient_norm=norm,
        seconds=seconds,
        skipped=skipped,
        after=at,
        tallies=tallies,
    )


def evaluate_loss(
    encoder: Encoder, feed: Feed[Any], options: TrainOptions, *, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """The loss over `feed` as that of a step, but without label smoothing and dropout; None when `stop` said yes."""
    tallies = evaluate(encoder, feed, options, stop=stop)
    return None if tallies is None else step_loss(tallies, options.head_weights)


@torch.no_grad()
def evaluate(
    encoder: Encoder, feed: Feed[Any], options: TrainOptions, *, stop: Callable[[], bool] = lambda: False
) -> dict[Key, Tally] | None:
    """What groups and heads lose over the first epoch of `feed`, without label smoothing and dropout.

    None when `stop` said yes. What memory does not hold is done in smaller parts, as in training.
    """
    encoder.eval()
    counts: Counter[Key] = Counter()
    sums: dict[Key, Tensor] = {}
    limit: int | None = None
    for number, indices in enumerate(feed.order(0)):
        waiting = below(limit, [Part(feed.batch(0, indices), (number,), True, 0, indices)], feed)
        while waiting:
            if stop():
                return None
            found = _scored(encoder, waiting[0], Scoring(precision=options.precision), (options.seed, 0))
            if found is None:
                limit = require_several(waiting[0], "validation")
                waiting = below(limit, waiting, feed)
                continue
            counts.update(labels_of(encoder, waiting.pop(0).batch))
            _add(sums, {place: sum_.double() for place, sum_ in found.items()})
    return _tallies(counts, sums)


class Counts(NamedTuple):
    """Labels of each group and head, tokens, and tokens with padding."""

    labels: Counter[Key]
    tokens: int
    padded_tokens: int


def _counts(encoder: Encoder, parts: list[Part], processes: Processes) -> Counts:
    """Those of the parts that count, of all processes."""
    batches = [part.batch for part in parts if part.counted]
    labels: Counter[Key] = Counter()
    for batch in batches:
        labels.update(labels_of(encoder, batch))
    mine = Counts(labels, sum(batch.tokens for batch in batches), sum(batch.ids.numel() for batch in batches))
    everyone = processes.gathered(mine)
    joined: Counter[Key] = Counter()
    for counts in everyone:
        joined.update(counts.labels)
    return Counts(joined, sum(counts.tokens for counts in everyone), sum(counts.padded_tokens for counts in everyone))


class Work(NamedTuple):
    """What is the same for all parts of a step, counted from 0. `labels` are those of the whole step."""

    options: TrainOptions
    step: int
    labels: Counter[Key]
    stop: Callable[[], bool]
    teacher: Teacher | None


def _asked(stop: Callable[[], bool], most: int) -> Callable[[], bool]:
    """`stop`, asked so many times and no more: processes ask together, and each may do a step in parts of its own."""
    questions = iter(range(most))
    return lambda: next(questions, None) is not None and stop()


def _accumulated(
    encoder: Encoder,
    optimizer: torch.optim.Optimizer,
    feed: Feed[Any],
    parts: list[Part],
    work: Work,
    limit: int | None,
) -> tuple[dict[Key, Tensor] | None, int | None]:
    """What `_accumulate` returns, from the step's beginning as often as a part is too large; and the limit found."""
    while True:
        optimizer.zero_grad(set_to_none=True)
        found = _accumulate(encoder, parts, work)
        if not isinstance(found, Part):
            return found, limit
        limit = require_several(found, f"step {work.step + 1}")
        parts = below(limit, parts, feed)


def _accumulate(encoder: Encoder, parts: list[Part], work: Work) -> dict[Key, Tensor] | Part | None:
    """Adds up the gradients of the parts, and returns what `score` does.

    None when `stop` said yes, the part when one was more than memory holds.
    """
    options = work.options
    encoder.recompute, encoder.blocks = options.checkpoint_activations, options.block_masks
    how = Scoring(options.label_smoothing, options.precision, work.teacher, options.class_smoothing)
    weights = _weights(work.labels, options.head_weights)
    sums: dict[Key, Tensor] = {}
    for part in parts:
        if work.stop():
            return None
        scales = {head: part.counted * weight for head, weight in weights.items()}
        found = _scored(encoder, part, how, (options.seed, work.step), scales)
        if found is None:
            return part
        _add(sums, {place: part.counted * sum_ for place, sum_ in found.items()})
    return sums


def _scored(
    encoder: Encoder, part: Part, how: Scoring, seeds: tuple[int, int], scales: Mapping[str, float] | None = None
) -> dict[Key, Tensor] | None:
    """What `score` does with a part, drawing from `seeds` (run, step) and its key; None when memory does not hold it.

    Processes that share the model out cannot do a part again by themselves.
    """
    try:
        with _seeded(encoder, *seeds, part.key):
            return score(encoder, part.batch, how, scales)
    except (RuntimeError, MemoryError) as error:
        if is_sharded(encoder) or not ran_out_of_memory(error):
            raise
    if encoder.head.bias.is_cuda:
        torch.cuda.empty_cache()
    return None


def _weights(labels: Counter[Key], weights: Mapping[str, float]) -> dict[str, float]:
    """What the summed losses of each head are multiplied with: its weight, divided by its labels in the whole step."""
    heads: Counter[str] = Counter()
    for (_, head), count in labels.items():
        heads[head] += count
    return {head: weights.get(head, 1.0) / max(count, 1) for head, count in heads.items()}


def _add(sums: dict[Key, Tensor], found: dict[Key, Tensor]) -> None:
    for place, values in found.items():
        sums[place] = sums[place] + values if place in sums else values


def _tallies(labels: Counter[Key], sums: dict[Key, Tensor], processes: Processes = ALONE) -> dict[Key, Tally]:
    """The tallies of all processes, in one order everywhere."""
    places = sorted(labels)
    found: dict[Key, list[float]] = (
        dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}
    )
    flat = processes.total(*(value for place in places for value in found.get(place, (0.0, 0.0))))
    return {place: Tally(flat[2 * number], labels[place], flat[2 * number + 1]) for number, place in enumerate(places)}


def _gradient_norm(encoder: Encoder, clip: float | None) -> float:
    """The norm of the whole gradient before it is clipped to `clip`."""
    norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), math.inf if clip is None else clip)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


@contextmanager
def _seeded(encoder: Encoder, seed: int, step: int, key: tuple[int, ...]) -> Iterator[None]:
    """Within the block random numbers are a function of (seed, step, key); the process's own go on as before."""
    device = encoder.head.bias.device
    drawn = int(np.random.SeedSequence((seed, step, *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(drawn)
        yield


def _check_budget(at: Position, options: TrainOptions) -> None:
    if at.skipped > options.skip_budget:
        raise NumericError(
            f"step {at.step}: loss or gradient is not a number, as in {at.skipped - 1} steps before",
            "lower finetune.learning_rate, lengthen finetune.warmup, or set finetune.precision: float32",
        )
