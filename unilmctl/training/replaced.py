"""ELECTRA's step (Clark et al. 2020, arXiv 2003.10555): a small generator restores masked tokens, by drawing them; the
model says of every token whether it is the text's own.

The generator learns as any masked language model does. No gradient goes through what it draws.

Shapes: N labels of the generator, M of the detector, D its hidden width, V vocabulary, B rows, T tokens.
"""

from dataclasses import replace

import torch
from torch import Tensor

from unilmctl.model import Encoder
from unilmctl.rows import LANGUAGE_MODEL, Batch, Targets
from unilmctl.training.loss import Scored, chunked_loss, word_losses
from unilmctl.training.precision import autocast
from unilmctl.visibility import Slots

REPLACED = "replaced"
"""The name of the detector's head."""

DETECTING = 50.0
"""ELECTRA's weight of the detector's loss; that of the generator's is 1."""


def drawn(logits: Tensor) -> Tensor:
    """An entry for each row of logits [N, V] with the probability that they give it, [N] (Gumbel's trick)."""
    noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits.float() + noise).argmax(-1)


def generated(
    generator: Encoder, batch: Batch, *, smoothing: float, precision: str, scale: float | None
) -> tuple[Scored, Batch]:
    """The generator's losses of a batch, and the batch that the detector reads, with labels for all heads but "lm".

    With a `scale` the gradient of scale x summed losses is computed too.
    """
    device = generator.head.bias.device
    wanted = batch.labels[LANGUAGE_MODEL]
    targets, found = wanted.targets.to(device), []
    slots = Slots(*(part.to(device) for part in batch.slots))
    places = [part.to(device) for part in (batch.ids, batch.positions, batch.segments)]

    def loss_of(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, precision):
            logits = generator.logits(hidden)
        found.append(drawn(logits.detach()))
        return word_losses(logits, labels, smoothing=smoothing, pad=generator.config.pad, spend=scale is not None)

    inner = None if batch.inner is None else batch.inner.to(device)
    with autocast(device, precision):
        hidden, _ = generator(*places, slots, wanted.slots.to(device), inner=inner)  # [N, D]
    scored = chunked_loss(loss_of, hidden, targets, scale=scale)
    return scored, with_replacements(batch, torch.cat(found)[: len(targets)].cpu())  # chunks but the last are full


def with_replacements(batch: Batch, tokens: Tensor) -> Batch:
    """The batch with `tokens` [N] at the language model's slots, which is what the detector learns from.

    A detector's target is 1 where the token is not the one that the text has: a generator that is right draws it.
    """
    wanted = batch.labels[LANGUAGE_MODEL]
    ids = batch.ids.flatten().index_copy(0, wanted.slots, tokens).view_as(batch.ids)  # [B, T]
    false = torch.zeros(ids.numel(), dtype=torch.long).index_copy(0, wanted.slots, (tokens != wanted.targets).long())
    labels: dict[str, Targets] = {}
    for head, targets in batch.labels.items():
        if head == REPLACED:
            labels[head] = targets._replace(targets=false[targets.slots])  # [M]
        elif head != LANGUAGE_MODEL:
            labels[head] = targets
    return replace(batch, ids=ids, labels=labels)
