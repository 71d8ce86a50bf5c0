"""The language-model loss: cross entropy against a smoothed target, computed where there are labels, in chunks.

Shapes: N labels, D hidden width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

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


def spent_loss(logits: Tensor, targets: Tensor, *, smoothing: float, pad: int) -> Tensor:
    """`smoothed_loss`, whose gradient is at once put in the place of the logits [N, V], which are lost.

    The gradient of one label is softmax - target, a constant for all entries but two: no other [N, V] is ever held.
    """
    losses: Tensor = _Spent.apply(logits, targets, smoothing, pad)  # type: ignore[no-untyped-call]
    return losses


class _Spent(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor, targets: Tensor, smoothing: float, pad: int) -> Tensor:
        """Blocks of rows that fit a cache, in float32."""
        share = smoothing / (logits.shape[-1] - 2)
        rows = len(logits) if logits.is_cuda else BLOCK
        losses = []
        for block, wanted in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
            gradient = block.softmax(-1, dtype=torch.float32)
            normaliser = block.amax(-1).float() - gradient.amax(-1).log()
            losses.append(_losses(block.float(), wanted, normaliser, smoothing=smoothing, pad=pad))
            if share:
                gradient -= share
                gradient[:, pad] += share
            picked = wanted[:, None]
            gradient.scatter_add_(1, picked, gradient.new_full(picked.shape, share + smoothing - 1))
            block.copy_(gradient.masked_fill_(picked == pad, 0.0))
        context.save_for_backward(logits)
        return torch.cat(losses)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """What the forward pass left, scaled."""
        return context.saved_tensors[0].mul_(gradients[0][:, None]), None, None, None


def chunked_loss(
    loss_of: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor, *, scale: float | None = None
) -> Tensor:
    """The summed loss of hidden states [N, D] with targets [N], one chunk of logits in memory at a time.

    `loss_of(hidden, targets)` gives losses [n]. With a `scale` the gradient of scale * loss is also computed: each
    chunk runs backward at once and frees its logits, then `hidden` runs backward. Without, nothing is differentiated.
    """
    total = torch.zeros((), device=hidden.device)
    if scale is None:
        for part, wanted in _chunks(hidden, targets):
            total += loss_of(part, wanted).sum()
        return total
    leaf = hidden.detach().requires_grad_()
    for part, wanted in _chunks(leaf, targets):
        missing = -len(wanted) % MULTIPLE
        loss = loss_of(functional.pad(part, (0, 0, 0, missing)), functional.pad(wanted, (0, missing)))
        loss = loss[: len(wanted)].sum()
        torch.autograd.backward(loss * scale)
        total += loss.detach()
    torch.autograd.backward(hidden, leaf.grad)
    return total


def _chunks(hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(targets), CHUNK):
        yield hidden[start : start + CHUNK], targets[start : start + CHUNK]
