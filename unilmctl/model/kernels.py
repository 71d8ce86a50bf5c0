"""What training computes by hand, because autograd would do more than is needed: dropout and attention on a CPU.

Shapes: B rows, T tokens, A heads, d head width, Q queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 2**16
"""Dropout rates are rounded to one of so many: four elements share one random number of 64 bits."""


def kept(like: Tensor, rate: float) -> Tensor:
    """What dropout multiplies with, of `like`'s shape and type: 0 with probability `rate`, else 1 / (1 - rate).

    The generator is asked for a quarter of the numbers that torch's own dropout draws, which takes a third of the time.
    """
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    dropped = round(rate * LEVELS)
    drawn = words.view(torch.int16)[: like.numel()].view(like.shape)
    return (drawn >= dropped - LEVELS // 2).to(like.dtype).mul_(LEVELS / (LEVELS - dropped))


def dropout(values: Tensor, rate: float) -> Tensor:
    """Elements are 0 with probability `rate` in [0, 1), the others grow so that the mean stays."""
    if rate == 0:
        return values
    return functional.dropout(values, rate) if values.is_cuda else values * kept(values, rate)


def mix(fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None) -> Tensor:
    """Attention that can be trained: queries, keys and values [3, B, A, T, d] give mixed values [B, A, Q, d], float32.

    `mask` [B, 1 or A, Q, T] is added to the scores; `queries` [B, Q] are the tokens that ask, None for all T of them.
    """
    mixed: Tensor = _Mix.apply(fused, mask, rate, queries)  # type: ignore[no-untyped-call]
    return mixed


class _Mix(torch.autograd.Function):
    """Scores, softmax, dropout and mixing with one buffer each way."""

    @staticmethod
    def forward(context: Any, fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None) -> Tensor:
        """See `mix`."""
        _, rows, heads, tokens, width = fused.shape
        query = fused[0] if queries is None else take(fused[0], queries)
        query, keys, values = (part.reshape(rows * heads, -1, width).float() for part in (query, fused[1], fused[2]))
        scores = query.new_empty(rows, heads, query.shape[1], tokens)
        scores.copy_(mask)
        flat = scores.view(rows * heads, -1, tokens).baddbmm_(query, keys.transpose(1, 2), alpha=width**-0.5)
        weights = flat.softmax(-1)
        keep = kept(weights, rate) if rate else None
        used = weights if keep is None else torch.mul(weights, keep, out=flat)
        context.save_for_backward(query, keys, values, weights, keep, queries)
        context.shapes = fused.shape, fused.dtype, mask.shape
        return torch.bmm(used, values).view(rows, heads, -1, width)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Of the scores: softmax's derivative; the dropped weights are made again."""
        query, keys, values, weights, keep, queries = context.saved_tensors
        shape, dtype, mask_shape = context.shapes
        mixed = gradients[0].reshape(query.shape).float()
        found = query.new_empty(3, *keys.shape)
        used = weights if keep is None else weights * keep
        torch.bmm(used.transpose(1, 2), mixed, out=found[2])
        scores = torch.bmm(mixed, values.transpose(1, 2), out=None if keep is None else used)
        if keep is not None:
            scores.mul_(keep)
        scores = torch.ops.aten._softmax_backward_data(scores, weights, -1, torch.float32)
        scale = shape[4] ** -0.5
        torch.bmm(scores.transpose(1, 2), query, out=found[1]).mul_(scale)
        asked = torch.bmm(scores, keys).mul_(scale)
        if queries is None:
            found[0] = asked
        else:
            whole = found[0].zero_().view(shape[1:])
            whole.scatter_add_(2, _spread(queries, whole), asked.view(*shape[1:3], -1, shape[4]))
        towards_mask = None
        if context.needs_input_grad[1]:
            towards_mask = scores.view(*shape[1:3], -1, shape[3]).sum_to_size(mask_shape)
        return found.view(shape).to(dtype), towards_mask, None, None


def take(table: Tensor, queries: Tensor) -> Tensor:
    """Rows `queries` [B, Q] of a table [B, 1 or A, T, *]: [B, 1 or A, Q, *]."""
    return table.gather(2, _spread(queries, table))


def _spread(queries: Tensor, table: Tensor) -> Tensor:
    return queries[:, None, :, None].expand(-1, table.shape[1], -1, table.shape[3])
