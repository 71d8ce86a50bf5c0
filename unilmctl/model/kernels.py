"""What training computes by hand, because autograd would do more than is needed: dropout and attention on a CPU.

Shapes: B rows, T tokens, A heads, d head width, Q queries.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 2**16
"""Dropout rates are rounded to one of so many: four elements share one random number of 64 bits."""

BLOCK = 2**19
"""Attention weights that are worked on at a time, in whole heads of one row: they stay in the cache meanwhile."""

MULTIPLE, WORTH = 16, 2**14
"""Queries are divided at multiples of the one, so that shapes come again, and where a head is spared the other's number
of weights."""

Part = tuple[int, slice]
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


def mix(fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None, reach: int = 0) -> Tensor:
    """Attention that can be trained: queries, keys and values [3, B, A, T, d] give mixed values [B, A, Q, d].

    `mask` [B, 1 or A, Q, T] is added to the scores; `queries` [B, Q] are the tokens that ask, None for all T of them.
    The first `reach` queries see none but the first `reach` keys.
    """
    with torch.autocast("cpu", enabled=False):
        mixed: Tensor = _Mix.apply(fused, mask, rate, queries, reach)  # type: ignore[no-untyped-call]
    return mixed


class _Mix(torch.autograd.Function):
    """Scores, softmax, dropout and mixing, few heads at a time; products in the type of `fused`, the rest in float32.

    One table of weights is kept for the backward pass: they are negative where they were dropped.
    """

    @staticmethod
    def forward(context: Any, fused: Tensor, mask: Tensor, rate: float, queries: Tensor | None, reach: int) -> Tensor:
        """See `mix`."""
        query, keys, values = _scaled_query(fused, queries), fused[1], fused[2]
        rows, heads, count, width = query.shape
        masks = mask.expand(-1, heads, -1, -1)
        mixed, tables = fused.new_empty(rows, count, heads, width).transpose(1, 2), []
        for asked, seen in _spans(count, keys.shape[2], reach):
            signed = fused.new_empty(rows, heads, asked.stop - asked.start, seen.stop)
            for part in _blocks(signed):
                scores = torch.bmm(query[part][:, asked], keys[part][:, seen].transpose(1, 2)).float()
                weights = scores.add_(masks[part][:, asked, seen]).softmax(-1)
                if rate:
                    weights *= _stays(weights.shape, rate, weights.device).mul_(2).sub_(1).to(weights.dtype)
                signed[part] = weights
                mixed[part][:, asked] = torch.bmm(weights.relu_().to(fused.dtype), values[part][:, seen])
            tables.append(signed)
        context.save_for_backward(fused, queries, *tables)
        context.growth, context.reach, context.mask_shape = _growth(rate), reach, mask.shape
        return mixed.mul_(context.growth)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """Softmax's derivative from the weights and what was used of them."""
        fused, queries, *tables = context.saved_tensors
        _, rows, heads, tokens, width = fused.shape
        query, mixed = _scaled_query(fused, queries), gradients[0] * context.growth
        found = fused.new_zeros(rows, tokens, 3, heads, width).permute(2, 0, 3, 1, 4)
        asking = found[0] if queries is None else torch.empty_like(query)
        learnt = context.needs_input_grad[1]
        towards_mask = fused.new_zeros(*query.shape[:3], tokens, dtype=torch.float32) if learnt else None
        for (asked, seen), signed in zip(_spans(query.shape[2], tokens, context.reach), tables, strict=True):
            for part in _blocks(signed):
                weights = signed[part].float()
                used = weights.relu()
                scores = torch.bmm(mixed[part][:, asked], fused[2][part][:, seen].transpose(1, 2)).float().mul_(used)
                scores.addcmul_(weights.abs(), scores.sum(-1, keepdim=True), value=-1)
                if towards_mask is not None:
                    towards_mask[part][:, asked, seen] = scores
                narrow = scores.to(fused.dtype)
                asking[part][:, asked] = torch.bmm(narrow, fused[1][part][:, seen])
                found[1][part][:, seen] += torch.bmm(narrow.transpose(1, 2), query[part][:, asked])
                found[2][part][:, seen] += torch.bmm(used.to(fused.dtype).transpose(1, 2), mixed[part][:, asked])
        asking *= width**-0.5
        if queries is not None:
            found[0].scatter_add_(2, _spread(queries, found[0]), asking)
        summed = None if towards_mask is None else towards_mask.sum_to_size(context.mask_shape)
        return found, summed, None, None, None


def reach_of(seen: Tensor, real: Tensor) -> int:
    """Where to divide tokens for attention: no query before it sees a key behind it, in any row of `seen` [B, T, T].

    Of all such places the one that saves most, as is the end of the source where nothing that is written is seen from
    there; 0 where it is not worth while. What is not `real` [B, T] does not count: nobody asks what padding has seen.
    """
    last = torch.arange(seen.shape[2], device=seen.device)
    furthest = (seen * real[:, :, None] * last).amax((0, 2)).cummax(0).values  # that queries up to each one see
    saved = (last + 1) * (len(last) - last - 1) * ((furthest <= last) & ((last + 1) % MULTIPLE == 0))
    best = int(saved.argmax())
    return best + 1 if saved[best] >= WORTH else 0


def _scaled_query(fused: Tensor, queries: Tensor | None) -> Tensor:
    """The queries [B, A, Q, d] that ask, divided by the root of their width."""
    query = fused[0] if queries is None else take(fused[0], queries)
    return query * float(query.shape[3] ** -0.5)


def _spans(count: int, tokens: int, reach: int) -> list[tuple[slice, slice]]:
    """Which queries see which keys at most (see `mix`)."""
    if reach == 0 or count < tokens:
        return [(slice(0, count), slice(0, tokens))]
    return [(slice(0, reach), slice(0, reach)), (slice(reach, count), slice(0, tokens))]


def _blocks(table: Tensor) -> Iterator[Part]:
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
