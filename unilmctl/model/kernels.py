"""What training computes by hand, because autograd would do more than is needed: dropout and attention on a CPU.

Shapes: B rows, T tokens, A heads, d head width, Q queries.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.model.division import Part, Parts

LEVELS = 2**16
"""Dropout rates are rounded to one of so many: four elements share one random number of 64 bits."""

BLOCK = 2**19
"""Attention weights that are worked on at a time, in whole heads of one row: they stay in the cache meanwhile."""

Heads = tuple[int, slice]
"""Some heads of a row."""


def kept(like: Tensor, rate: float) -> Tensor:
    """What dropout multiplies with, of `like`'s shape and type: 0 with probability `rate`, else 1 / (1 - rate).

    The generator is asked for a quarter of the numbers that torch's own dropout draws, which takes a third of the time.
    """
    return _stays(like.shape, rate, like.device).to(like.dtype).mul_(_growth(rate))


def _stays(shape: torch.Size, rate: float, device: torch.device) -> Tensor:
    """0 with probability `rate`, else 1, as 16-bit integers: booleans would take several times as long."""
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.int16)[: shape.numel()].view(shape).ge_(round(rate * LEVELS) - LEVELS // 2)


def _growth(rate: float) -> float:
    """What the elements that stay are multiplied with, so that the mean does."""
    return LEVELS / (LEVELS - round(rate * LEVELS))


def dropout(values: Tensor, rate: float) -> Tensor:
    """Elements are 0 with probability `rate` in [0, 1), the others grow so that the mean stays."""
    if rate == 0:
        return values
    return functional.dropout(values, rate) if values.is_cuda else values * kept(values, rate)


def mix(fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None, parts: Parts = ()) -> Tensor:
    """Attention that can be trained: queries, keys and values [3, B, A, T, d] give mixed values [B, A, Q, d].

    `mask` [B, 1 or A, Q, T] is added to the scores; `queries` [B, Q] are the tokens that ask, None for all T of them.
    With `parts`, queries see no keys but those of their part.
    """
    with torch.autocast("cpu", enabled=False):
        mixed: Tensor = _Mix.apply(fused, mask, rate, queries, parts)  # type: ignore[no-untyped-call]
    return mixed


class _Mix(torch.autograd.Function):
    """Scores, softmax, dropout and mixing, few heads at a time; products in the type of `fused`, the rest in float32.

    One table of weights is kept for the backward pass: they are negative where they were dropped.
    """

    @staticmethod
    def forward(context: Any, fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None, parts: Parts) -> Tensor:
        """See `mix`."""
        query = _scaled_query(fused, queries)
        rows, heads, count, width = query.shape
        parts = parts or (Part(slice(0, rows), slice(0, count), slice(0, fused.shape[3])),)
        masks = mask.expand(-1, heads, -1, -1)
        mixed, tables = fused.new_empty(rows, count, heads, width).transpose(1, 2), []
        for part in parts:
            asking, result = _asked(part, query, mixed)
            keys, values = _seen(part, fused[1], fused[2])
            added = masks[part.rows, :, part.asked, part.seen]
            signed = fused.new_empty(added.shape)
            for some in _blocks(signed):
                scores = torch.bmm(asking[some], keys[some].transpose(1, 2)).float()
                weights = scores.add_(added[some]).softmax(-1)
                if rate:
                    weights *= _stays(weights.shape, rate, weights.device).mul_(2).sub_(1).to(weights.dtype)
                signed[some] = weights
                result[some] = torch.bmm(weights.relu_().to(fused.dtype), values[some])
            tables.append(signed)
        context.save_for_backward(fused, queries, *tables)
        context.growth, context.parts, context.mask_shape = _growth(rate), parts, mask.shape
        return mixed.mul_(context.growth)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """Softmax's derivative from the weights and what was used of them."""
        fused, queries, *tables = context.saved_tensors
        _, rows, heads, tokens, width = fused.shape
        query, mixed = _scaled_query(fused, queries), gradients[0] * context.growth
        found = fused.new_zeros(rows, tokens, 3, heads, width).permute(2, 0, 3, 1, 4)
        towards_query = found[0] if queries is None else torch.empty_like(query)
        learnt = context.needs_input_grad[1]
        towards_mask = fused.new_zeros(*query.shape[:3], tokens, dtype=torch.float32) if learnt else None
        for part, signed in zip(context.parts, tables, strict=True):
            asking, result, towards_asking = _asked(part, query, mixed, towards_query)
            keys, values, towards_keys, towards_values = _seen(part, *fused[1:], *found[1:])
            for some in _blocks(signed):
                weights = signed[some].float()
                used = weights.relu()
                scores = torch.bmm(result[some], values[some].transpose(1, 2)).float().mul_(used)
                scores.addcmul_(weights.abs(), scores.sum(-1, keepdim=True), value=-1)
                if towards_mask is not None:
                    towards_mask[part.rows, :, part.asked, part.seen][some] = scores
                narrow = scores.to(fused.dtype)
                towards_asking[some] = torch.bmm(narrow, keys[some])
                towards_keys[some] += torch.bmm(narrow.transpose(1, 2), asking[some])
                towards_values[some] += torch.bmm(used.to(fused.dtype).transpose(1, 2), result[some])
        towards_query *= width**-0.5
        if queries is not None:
            found[0].scatter_add_(2, _spread(queries, found[0]), towards_query)
        summed = None if towards_mask is None else towards_mask.sum_to_size(context.mask_shape)
        return found, summed, None, None, None


def _asked(part: Part, *tables: Tensor) -> list[Tensor]:
    """A part's queries in tables [B, A, Q, *]."""
    return [table[part.rows, :, part.asked] for table in tables]


def _seen(part: Part, *tables: Tensor) -> list[Tensor]:
    """A part's keys in tables [B, A, T, *]."""
    return [table[part.rows, :, part.seen] for table in tables]


def _scaled_query(fused: Tensor, queries: Tensor | None) -> Tensor:
    """The queries [B, A, Q, d] that ask, divided by the root of their width."""
    query = fused[0] if queries is None else take(fused[0], queries)
    return query * float(query.shape[3] ** -0.5)


def _blocks(table: Tensor) -> Iterator[Heads]:
    """The heads of a table [B, A, Q, K] in parts of about `BLOCK` numbers."""
    rows, heads, *sizes = table.shape
    several = max(1, BLOCK // (sizes[0] * sizes[1]))
    for row in range(rows):
        for first in range(0, heads, several):
            yield row, slice(first, first + several)


def take(table: Tensor, queries: Tensor) -> Tensor:
    """Rows `queries` [B, Q] of a table [B, 1 or A, T, *]: [B, 1 or A, Q, *]."""
    return table.gather(2, _spread(queries, table))


def _spread(queries: Tensor, table: Tensor) -> Tensor:
    return queries[:, None, :, None].expand(-1, table.shape[1], -1, table.shape[3])


def words(vectors: Tensor) -> Tensor:
    """Vectors [X, d] as words of 16 bytes, if they can be: to copy them takes a half to a third of the time."""
    whole = vectors.shape[1] * vectors.element_size() % 16 == 0
    return vectors.view(torch.complex128) if whole else vectors
