"""The rule that says who sees whom.

Attention masks are never built by hand. Every token of a row carries three integers, and one comparison decides:

    visible(query, key)  =  document[query] == document[key]  and  time[key] <= time[query] < until[key]

`time` is when a token is written and when it reads, `until` when it stops being readable (exclusive). The rule gives
the masks of BERT, UniLM 1 and 2, s2s-ft, GPT, XLNet, MPNet, MASS, GLM and block diffusion alike, and three things
follow from it: information never flows to a smaller time, keys and values stay valid while later tokens have larger
times (so a cache is exact), and the same integers serve a dense mask, a block mask and the cache policy.

Shapes: B rows, Q queries, K keys, T tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FOREVER = 2**30
"""The `until` of an ordinary token: it stays readable."""

PADDING = -1
"""The `document` of padding: it sees padding only, so that no softmax is empty."""


class Slots(NamedTuple):
    """The three integers of every token: each [B, T] (or [T]), integer."""

    document: Tensor
    time: Tensor
    until: Tensor

    def select(self, index: slice) -> "Slots":
        """The same slots, cut along the last dimension."""
        return Slots(self.document[..., index], self.time[..., index], self.until[..., index])


def visible(query: Slots, key: Slots) -> Tensor:
    """Which keys each query reads: [B, Q] and [B, K] slots give [B, Q, K] bool."""
    time = query.time[..., :, None]
    return (
        (query.document[..., :, None] == key.document[..., None, :])
        & (key.time[..., None, :] <= time)
        & (time < key.until[..., None, :])
    )


def readable_after(key: Slots, time: int) -> Tensor:
    """The cache policy: which keys a query at any later time than `time` can still read, [B, T] bool."""
    return (key.document != PADDING) & (key.until > time + 1)


def mask_mod(query: Slots, key: Slots) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule as FlexAttention's `mask_mod(batch, head, query, key)` over [B, Q] and [B, K] slots."""

    def rule(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        time = query.time[batch, q]
        same = query.document[batch, q] == key.document[batch, k]
        return same & (key.time[batch, k] <= time) & (time < key.until[batch, k])

    return rule


def stack(slots: list[Slots]) -> Slots:
    """Joins slots along the token dimension: [B, T1], [B, T2], ... give [B, T1 + T2 + ...]."""
    return Slots(*(torch.cat(parts, dim=-1) for parts in zip(*slots, strict=True)))
