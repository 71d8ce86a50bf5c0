"""Losses of the heads beside the language model's: from scores to a loss, and right or wrong, for each label.

Shapes: N labels, C classes, D width of a vector, G examples of a span head.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.rows import Targets

SCALE = 30.0
"""What similarities are multiplied with before the softmax (SimBERT)."""

BEGINS, ENDS = 1, 2
"""Bits of a span head's target: the answer begins here, ends here."""


def counted(kind: str | None, targets: Targets) -> Tensor:
    """Which labels count, [N]: all of them, but of a span head one for each answer, where it begins."""
    if kind == "span":
        return (targets.targets & BEGINS) > 0
    return torch.ones(len(targets.targets), dtype=torch.bool, device=targets.targets.device)


CLASSES = ("class", "token")
"""Kinds of heads whose losses are `class_losses`."""


def class_losses(scores: Tensor, wanted: Targets, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross entropy of scores [N, C] against targets of which a share is spread evenly over all classes."""
    losses = functional.cross_entropy(scores, wanted.targets, reduction="none", label_smoothing=smoothing)
    return losses, scores.argmax(-1) == wanted.targets


def square_losses(scores: Tensor, wanted: Targets) -> tuple[Tensor, Tensor]:
    """Squared errors of measures [N]; none of them is right or wrong."""
    losses = (scores - wanted.targets.to(scores.dtype)).square()
    return losses, torch.full_like(losses, math.nan)


def replaced_losses(scores: Tensor, wanted: Targets) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of scores [N] against targets 0 (the text's own token) and 1 (one that was put there)."""
    losses = functional.binary_cross_entropy_with_logits(scores, wanted.targets.to(scores.dtype), reduction="none")
    return losses, (scores > 0) == (wanted.targets > 0)


def span_losses(scores: Tensor, wanted: Targets) -> tuple[Tensor, Tensor]:
    """Extractive answers: cross entropies of the beginning and of the end, halved, from scores [N, 2].

    Labels are all the slots that an answer may begin or end at. Those with the same first column of `aside` (their
    example's [CLS]) are one example's, over which the softmax runs; a target is made of `BEGINS` and `ENDS`.
    """
    assert wanted.aside is not None
    _, example = torch.unique(wanted.aside[:, 0], return_inverse=True)  # [N]
    count = int(example.max()) + 1
    losses = scores.new_zeros(len(scores))
    right = torch.ones(count, dtype=torch.bool, device=scores.device)
    for column, bit in enumerate((BEGINS, ENDS)):
        score, true = scores[:, column], (wanted.targets & bit) > 0
        highest = score.detach().new_full((count,), -math.inf).scatter_reduce(0, example, score.detach(), "amax")
        sums = score.new_zeros(count).index_add(0, example, (score - highest[example]).exp())
        losses = losses + torch.where(true, highest[example] + sums[example].log() - score, 0.0) / 2
        hits = true & (score.detach() == highest[example])
        right &= torch.zeros_like(right).scatter_reduce(0, example, hits, "amax")
    return losses, right[example] & counted("span", wanted)


def contrastive_losses(scores: Tensor, wanted: Targets) -> tuple[Tensor, Tensor]:
    """In-batch softmax over the similarities of vectors [N, D] (SimBERT): each shall be nearest to its partners.

    Partners have equal targets. A vector is never compared with itself; one without a partner costs nothing.
    """
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    partner = (wanted.targets[:, None] == wanted.targets) & ~itself  # [N, N]
    similar = (SCALE * scores @ scores.T).masked_fill(itself, -math.inf)
    against = -similar.log_softmax(-1).masked_fill(~partner, 0.0)
    losses = against.sum(-1) / partner.sum(-1).clamp(min=1)
    return losses, partner.gather(1, similar.argmax(-1, keepdim=True))[:, 0]


HEAD_LOSSES: Mapping[str, Callable[[Tensor, Targets], tuple[Tensor, Tensor]]] = {
    "regression": square_losses,
    "span": span_losses,
    "replaced": replaced_losses,
    "contrastive": contrastive_losses,
}
"""By the kind of head: scores in float32 give losses [N] and which labels were chosen first [N]. (A boundary head
chooses words, as the language model does.) None of these is smoothed: a number has no classes, and most slots of a text
are no answer that could be meant as well."""
