"""What a model loses on a batch, head by head, and the gradient of it.

The encoder runs once, for the slots that some head reads; then each head runs, and runs backward, for itself. A head
that the step has labels for, but the batch has none, gets a gradient of nothing: processes that share a step so agree
on which parameters have one.

Shapes: N labels of a head, U slots that are read, D hidden width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.model import Encoder
from unilmctl.rows import LANGUAGE_MODEL, Batch, Targets
from unilmctl.training.distillation import Teacher
from unilmctl.training.heads import CLASSES, HEAD_LOSSES, class_losses, counted
from unilmctl.training.loss import Scored, chunked_loss, likeliest, smoothed_loss, word_losses
from unilmctl.training.precision import autocast
from unilmctl.training.replaced import generated
from unilmctl.visibility import Slots

Key = tuple[int, str]
"""A group of labels (an entry of a mix) and a head."""


class Tally(NamedTuple):
    """Of one group and head: the summed losses, the labels, and how many of them the model's first choice was.

    `correct` is not a number for a head that measures.
    """

    loss_sum: float
    labels: int
    correct: float

    @property
    def loss(self) -> float:
        """Per label."""
        return self.loss_sum / max(self.labels, 1)

    @property
    def accuracy(self) -> float | None:
        """Share of the labels that were chosen first; None where there is no right or wrong."""
        return None if math.isnan(self.correct) else self.correct / max(self.labels, 1)


@dataclass(frozen=True)
class Scoring:
    """How a batch is scored: label smoothing of heads that choose words, precision, who teaches, and label smoothing of
    heads that choose classes.
    """

    smoothing: float = 0.0
    precision: str = "float32"
    teacher: Teacher | None = None
    class_smoothing: float = 0.0


def labels_of(encoder: Encoder, batch: Batch) -> dict[Key, int]:
    """How many labels a batch has for each group and head."""
    kinds = {head.name: head.kind for head in encoder.config.heads_extra}
    found: dict[Key, int] = {}
    for head, targets in batch.labels.items():
        counts = counted(kinds.get(head), targets)
        for group, chosen in _groups(targets):
            found[group, head] = int(counts[chosen].sum())
    return found


def step_loss(tallies: Mapping[Key, Tally], weights: Mapping[str, float]) -> float:
    """The sum over heads of weight x (summed losses / labels); a head without a weight of its own has 1."""
    heads = dict.fromkeys(head for _, head in tallies)
    total = 0.0
    for head in heads:
        mine = [tally for (_, name), tally in tallies.items() if name == head]
        labels = max(sum(tally.labels for tally in mine), 1)
        total += weights.get(head, 1.0) * sum(tally.loss_sum for tally in mine) / labels
    return total


def score(encoder: Encoder, batch: Batch, how: Scoring, scales: Mapping[str, float] | None = None) -> dict[Key, Tensor]:
    """Summed losses and right choices [2] of a batch for each group and head.

    `scales` names every head that the step has labels for: with them, the gradient of the sum over heads of scale x
    summed losses is computed too. If the model has a generator, the language model's labels are the generator's, and
    the others read what it has written.
    """
    wanted_words = batch.labels.get(LANGUAGE_MODEL)
    if encoder.generator is not None and wanted_words is not None and len(wanted_words.targets):
        scale = None if scales is None else scales[LANGUAGE_MODEL]
        scored, rest = generated(
            encoder.generator, batch, smoothing=how.smoothing, precision=how.precision, scale=scale
        )
        others = None if scales is None else {head: part for head, part in scales.items() if head != LANGUAGE_MODEL}
        return _by_group(LANGUAGE_MODEL, scored, batch.labels) | score(encoder, rest, how, others)
    device = encoder.head.bias.device
    labels = {head: targets for head, targets in batch.labels.items() if len(targets.targets)}
    here = {head: Targets(*(None if part is None else part.to(device) for part in targets))  # type: ignore[arg-type]
            for head, targets in labels.items()}  # fmt: skip
    alone = here.keys() == {LANGUAGE_MODEL}
    wanted, places = (here[LANGUAGE_MODEL].slots, {}) if alone else _read(here, encoder)
    ids, positions, segments = (part.to(device) for part in (batch.ids, batch.positions, batch.segments))
    slots, inner = Slots(*(part.to(device) for part in batch.slots)), batch.inner
    if inner is None and encoder.embeddings.inner is not None:
        inner = torch.zeros_like(batch.ids)  # changes nothing, and the table has a gradient, as it has elsewhere
    with autocast(device, how.precision):
        hidden, _ = encoder(
            ids, positions, segments, slots, wanted, inner=None if inner is None else inner.to(device)
        )  # [U, D]
    if scales is not None:
        _touch(encoder, scales.keys() - here.keys())
    if alone:
        return _by_group(LANGUAGE_MODEL, _words(encoder, batch, hidden, here[LANGUAGE_MODEL], how, scales), labels)
    leaf = hidden if scales is None else hidden.detach().requires_grad_()
    found: dict[Key, Tensor] = {}
    for head, targets in here.items():
        states = [leaf.index_select(0, index) for index in places[head]]
        if head == LANGUAGE_MODEL:
            scored = _words(encoder, batch, states[0], targets, how, scales)
        else:
            scored = _other(encoder, batch, head, states, targets, how, scales)
        found |= _by_group(head, scored, labels)
    if scales is not None:
        torch.autograd.backward(hidden, torch.zeros_like(hidden) if leaf.grad is None else leaf.grad)
    return found


def _read(labels: Mapping[str, Targets], encoder: Encoder) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """The slots [U] that heads read, row after row, and where among them each head's are: [N], twice for two slots."""
    pairs = {head.name for head in encoder.config.heads_extra if head.kind == "boundary"}
    read = {
        head: [targets.slots, targets.aside[:, 0]] if head in pairs and targets.aside is not None else [targets.slots]
        for head, targets in labels.items()
    }
    flat = [slots for parts in read.values() for slots in parts]
    if not flat:
        return torch.zeros(1, dtype=torch.long, device=encoder.head.bias.device), {}
    wanted, inverse = torch.unique(torch.cat(flat), return_inverse=True)
    places = iter(inverse.split([len(slots) for slots in flat]))
    return wanted, {head: [next(places) for _ in parts] for head, parts in read.items()}


def _touch(encoder: Encoder, heads: set[str]) -> None:
    """Gradients of nothing for the parameters of these heads."""
    for head in heads:
        for parameter in encoder.parameters_of(head):
            if parameter.requires_grad:
                torch.autograd.backward(parameter.sum() * 0)


def _words(
    encoder: Encoder,
    batch: Batch,
    hidden: Tensor,
    wanted: Targets,
    how: Scoring,
    scales: Mapping[str, float] | None,
) -> Scored:
    """The language model's part: hidden states [N, D]."""
    device, pad = hidden.device, encoder.config.pad
    scale, targets, teacher = None if scales is None else scales[LANGUAGE_MODEL], wanted.targets, how.teacher

    def loss_of(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, how.precision):
            logits = encoder.logits(hidden)
        return word_losses(logits, targets, smoothing=how.smoothing, pad=pad, spend=scale is not None)

    if teacher is None:
        return chunked_loss(loss_of, hidden, targets, scale=scale)
    with autocast(device, how.precision):
        states = teacher.states(batch)  # [N, D] of the teacher

    def taught_loss_of(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the labels with these numbers."""
        with autocast(device, how.precision):
            logits, taught = encoder.logits(hidden), teacher.logits(states[labels])
        losses = smoothed_loss(logits, targets[labels], smoothing=how.smoothing, pad=pad)
        mixed = teacher.mixed(losses, logits, taught).masked_fill(targets[labels] == pad, 0.0)
        return mixed, likeliest(logits.detach(), targets[labels])

    return chunked_loss(taught_loss_of, hidden, torch.arange(len(targets), device=device), scale=scale)


def _other(
    encoder: Encoder,
    batch: Batch,
    head: str,
    states: list[Tensor],
    wanted: Targets,
    how: Scoring,
    scales: Mapping[str, float] | None,
) -> Scored:
    """Any other head's part: hidden states [N, D], of a boundary head two."""
    device, kind = states[0].device, encoder.config.head(head).kind
    scale = None if scales is None else scales[head]
    if kind == "boundary" and wanted.aside is not None:
        offsets, targets = wanted.aside[:, 1], wanted.targets

        def loss_of(both: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            """Losses of the labels with these numbers: states [n, 2 * D] of the left and the right slot."""
            left, right = both.chunk(2, -1)
            with autocast(device, how.precision):
                logits = encoder.scores(head, left, right, offsets[labels])
            pad, spend = encoder.config.pad, scale is not None
            return word_losses(logits, targets[labels], smoothing=how.smoothing, pad=pad, spend=spend)

        return chunked_loss(loss_of, torch.cat(states, -1), torch.arange(len(targets), device=device), scale=scale)
    with autocast(device, how.precision):
        scores = encoder.scores(head, states[0])
    if kind in CLASSES:
        losses, correct = class_losses(scores.float(), wanted, how.class_smoothing)
        if how.teacher is not None:
            with autocast(device, how.precision):
                taught = how.teacher.scores(batch, head)
            losses = how.teacher.mixed(losses, scores, taught)
    else:
        losses, correct = HEAD_LOSSES[kind](scores.float(), wanted)
    total = losses.sum()
    if scale is not None:
        torch.autograd.backward(total * scale)
    return Scored(total.detach(), losses.detach(), correct)


def _groups(targets: Targets) -> list[tuple[int, Tensor | slice]]:
    """The groups of labels, and which labels are theirs."""
    if targets.group is None:
        return [(0, slice(None))]
    return [(group, targets.group == group) for group in torch.unique(targets.group).tolist()]


def _by_group(head: str, scored: Scored, labels: Mapping[str, Targets]) -> dict[Key, Tensor]:
    """Summed losses and right choices [2] of a head for each group; `labels` are on the CPU."""
    groups = _groups(labels[head])
    if len(groups) == 1:
        return {(groups[0][0], head): torch.stack((scored.total, scored.correct.sum().to(scored.total.dtype)))}
    found = {}
    for group, chosen in groups:
        assert isinstance(chosen, Tensor)
        mine = chosen.to(scored.losses.device)
        correct = scored.correct[mine].sum().to(scored.losses.dtype)
        found[group, head] = torch.stack((scored.losses[mine].sum(), correct))
    return found
