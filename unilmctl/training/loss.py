"""The language-model loss: cross entropy against a smoothed target, computed where there are labels, in chunks.

Shapes: N labels, D hidden width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 2048
"""Labels whose logits [CHUNK, V] are held at once."""

BLOCK = 16
"""Labels whose logits are turned into a gradient at once on a CPU: they stay in its cache meanwhile."""

MULTIPLE = 64
"""Chunks are filled up to a multiple of this: every new shape costs a kernel its preparation, and memory to keep it."""


def smoothed_loss(logits: Tensor, targets: Tensor, *, smoothing: float, pad: int) -> Tensor:
    """Divergence from the smoothed target distribution to the model, per label: [N, V] and [N] give [N], float32.

    The target has probability 1 - smoothing, every other entry smoothing / (V - 2), the entry `pad` none; the entropy
    of that distribution is part of the loss, so that 0 is a perfect model. A label that is `pad` costs nothing. This is
    the loss of UniLM and s2s-ft; it is computed from sums of log-probabilities, without a matrix of targets.
    """
    logits = logits.float()
    return _losses(logits, targets, logits.logsumexp(-1), smoothing=smoothing, pad=pad)


def _losses(logits: Tensor, targets: Tensor, normaliser: Tensor, *, smoothing: float, pad: int) -> Tensor:
    """`smoothed_loss` of float32 logits whose log-sum-exp [N] is known."""
    picked = logits.gather(-1, targets[:, None])[:, 0] - normaliser
    loss = -picked
    if smoothing > 0:
        size = logits.shape[-1]
        share = smoothing / (size - 2)
        others = logits.sum(-1) - size * normaliser - (logits[:, pad] - normaliser) - picked
        entropy = (1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(share)
        loss = entropy - (1 - smoothing) * picked - share * others
    return loss.masked_fill(targets == pad, 0.0)


def likeliest(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether each target [N] is the likeliest entry of its logits [N, V], [N] bool."""
    return logits.gather(-1, targets[:, None])[:, 0] == logits.amax(-1)


def spent_loss(logits: Tensor, targets: Tensor, *, smoothing: float, pad: int) -> tuple[Tensor, Tensor]:
    """`smoothed_loss` and `likeliest`; the loss's gradient is at once put in the place of the logits, which are lost.

    The gradient of one label is softmax - target, a constant for all entries but two: no other [N, V] is ever held.
    """
    found: tuple[Tensor, Tensor] = _Spent.apply(logits, targets, smoothing, pad)  # type: ignore[no-untyped-call]
    return found


def word_losses(logits: Tensor, targets: Tensor, *, smoothing: float, pad: int, spend: bool) -> tuple[Tensor, Tensor]:
    """Losses [N] of logits [N, V], which may be spent, and whether each target was the likeliest."""
    if spend:
        return spent_loss(logits, targets, smoothing=smoothing, pad=pad)
    return smoothed_loss(logits, targets, smoothing=smoothing, pad=pad), likeliest(logits, targets)


class _Spent(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor, targets: Tensor, smoothing: float, pad: int) -> tuple[Tensor, Tensor]:
        """Blocks of rows that fit a cache, in float32."""
        share = smoothing / (logits.shape[-1] - 2)
        rows = len(logits) if logits.is_cuda else BLOCK
        losses, first = [], []
        for block, wanted in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
            gradient = block.softmax(-1, dtype=torch.float32)
            highest = gradient.amax(-1)
            normaliser = block.amax(-1).float() - highest.log()
            first.append(gradient.gather(1, wanted[:, None])[:, 0] == highest)
            losses.append(_losses(block.float(), wanted, normaliser, smoothing=smoothing, pad=pad))
            if share:
                gradient -= share
                gradient[:, pad] += share
            picked = wanted[:, None]
            gradient.scatter_add_(1, picked, gradient.new_full(picked.shape, share + smoothing - 1))
            block.copy_(gradient.masked_fill_(picked == pad, 0.0))
        context.save_for_backward(logits)
        chosen = torch.cat(first)
        context.mark_non_differentiable(chosen)
        return torch.cat(losses), chosen

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """What the forward pass left, scaled."""
        return context.saved_tensors[0].mul_(gradients[0][:, None]), None, None, None


class Scored(NamedTuple):
    """The sum of some losses, the losses [N], and whether each label was the model's first choice [N]."""

    total: Tensor
    losses: Tensor
    correct: Tensor


def chunked_loss(
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    hidden: Tensor,
    targets: Tensor,
    *,
    scale: float | None = None,
) -> Scored:
    """The losses of hidden states [N, D] with targets [N], one chunk of logits in memory at a time.

    `loss_of(hidden, targets)` gives losses and first choices [n]. With a `scale` the gradient of scale * loss is also
    computed: each chunk runs backward at once and frees its logits, then `hidden` runs backward. Without, nothing is
    differentiated.
    """
    total = torch.zeros((), device=hidden.device)
    found = []
    if scale is None:
        for part, wanted in _chunks(hidden, targets):
            found.append(loss_of(part, wanted))
            total += found[-1][0].sum()
        return Scored(total, *_joined(found))
    leaf = hidden.detach().requires_grad_()
    for part, wanted in _chunks(leaf, targets):
        missing = -len(wanted) % MULTIPLE
        losses, first = loss_of(functional.pad(part, (0, 0, 0, missing)), functional.pad(wanted, (0, missing)))
        loss = losses[: len(wanted)].sum()
        torch.autograd.backward(loss * scale)
        total += loss.detach()
        found.append((losses[: len(wanted)].detach(), first[: len(wanted)]))
    torch.autograd.backward(hidden, leaf.grad)
    return Scored(total, *_joined(found))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    losses, first = zip(*parts, strict=True)
    return torch.cat(losses), torch.cat(first)


def _chunks(hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(targets), CHUNK):
        yield hidden[start : start + CHUNK], targets[start : start + CHUNK]
