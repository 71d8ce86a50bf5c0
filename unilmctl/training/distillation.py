"""Distillation: at the labelled slots a model learns what a larger one would write there (Hinton et al. 2015, arXiv
1503.02531), or which label it would give, besides what the data says.

Shapes: N labels, D hidden width (student's and teacher's differ), V vocabulary and C classes, the same for both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.model import Encoder
from unilmctl.rows import LANGUAGE_MODEL, Batch
from unilmctl.visibility import Slots


@dataclass(frozen=True)
class Teacher:
    """A trained model, the weight of its answers in the loss, and the temperature that makes them softer."""

    encoder: Encoder
    weight: float
    temperature: float

    @torch.no_grad()
    def states(self, batch: Batch, head: str = LANGUAGE_MODEL) -> Tensor:
        """The teacher's hidden states at the slots that a head has labels for, [N, D]."""
        device = self.encoder.head.bias.device
        ids, positions, segments = (part.to(device) for part in (batch.ids, batch.positions, batch.segments))
        slots = Slots(*(part.to(device) for part in batch.slots))
        wanted = batch.labels[head].slots.to(device)
        hidden: Tensor = self.encoder.eval()(ids, positions, segments, slots, wanted)[0]
        return hidden

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """What the teacher would write: [N, D] gives [N, V]."""
        found: Tensor = self.encoder.logits(states)
        return found

    @torch.no_grad()
    def scores(self, batch: Batch, head: str) -> Tensor:
        """What the teacher thinks of each class of a head, [N, C]."""
        return self.encoder.scores(head, self.states(batch, head))

    def mixed(self, losses: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """Losses [N] against the data, mixed with those of the student's logits against the teacher's, all [N, V].

        (Or scores of classes [N, C].)
        """
        return (1 - self.weight) * losses + self.weight * soft_loss(logits, taught, self.temperature)


def soft_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Divergence from the teacher's distribution to the student's, both softened: [N, V] and [N, V] give [N].

    It is multiplied with the square of the temperature, so that its gradient does not shrink with it.
    """
    student, teacher = ((part.float() / temperature).log_softmax(-1) for part in (logits, taught))
    return functional.kl_div(student, teacher, log_target=True, reduction="none").sum(-1) * temperature**2
