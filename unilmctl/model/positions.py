"""Where tokens stand, as attention feels it: by their positions, never by their places in a row.

UniLM 2 and MPNet add a learnt bias for each distance to the scores, RoFormer and ModernBERT turn queries and keys by
angles that grow with the position, NEZHA has a vector for each distance, and ModernBERT's local layers see no further
than a window. `View` is what all of it comes to for one layer of one pass.

Shapes: B rows, T tokens, Q queries, K keys, A heads, d width of a head.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from unilmctl.model.config import ModelConfig
from unilmctl.model.division import Parts, among
from unilmctl.model.kernels import take


class Turn(NamedTuple):
    """Cosines and sines of tokens' angles [B, T, d / 2]; the two of a pair are `interleaved`, or half a head apart."""

    cosine: Tensor
    sine: Tensor
    interleaved: bool


class Vectors(NamedTuple):
    """A vector for each distance: a `table` [distances, d], and its row for each query and key, `rows` [B, Q, K]."""

    table: Tensor
    rows: Tensor

    def scores(self, query: Tensor) -> Tensor:
        """What queries [B, A, Q, d] add to their scaled scores: [B, A, Q, K]."""
        table = self.table.to(query.dtype) * query.shape[3] ** -0.5
        scores: Tensor = _each(query, table.T).gather(3, self._rows(query))
        return scores

    def mixed(self, weights: Tensor) -> Tensor:
        """What weights [B, A, Q, K] add to the mixed values: [B, A, Q, d]."""
        sums = weights.new_zeros(*weights.shape[:3], len(self.table)).scatter_add(3, self._rows(weights), weights)
        return _each(sums, self.table.to(weights.dtype))

    def _rows(self, like: Tensor) -> Tensor:
        return self.rows[:, None].expand(-1, like.shape[1], -1, -1)


def _each(left: Tensor, right: Tensor) -> Tensor:
    """[B, A, Q, x] and [x, y] give [B, A, Q, y], a product for each head: none is rounded as the others ask for it."""
    flat = left.flatten(0, 1)
    return torch.bmm(flat, right.expand(len(flat), -1, -1)).view(*left.shape[:3], -1)


class View(NamedTuple):
    """What a layer knows of the tokens beside their hidden states: who sees whom, and where they stand.

    `mask` [B, 1 or A, Q, K] is bool, or float to be added to the scores. In `parts` queries see no keys but those of
    their part. `blocks` say what the mask does, of a full pass.
    """

    mask: Tensor
    turn: Turn | None = None
    vectors: Vectors | None = None
    parts: Parts = ()
    blocks: BlockMask | None = None

    def of(self, queries: Tensor) -> "View":
        """The same for those of the queries alone that `queries` [B, q] names."""
        vectors = self.vectors
        if vectors is not None:
            vectors = Vectors(vectors.table, take(vectors.rows[:, None], queries)[:, 0])
        return View(take(self.mask, queries), self.turn, vectors, among(self.parts, queries))

    def last(self, queries: int, count: int) -> "View":
        """The same for the last `count` of each beam's `queries`, which lie side by side."""
        vectors = self.vectors
        if vectors is not None:
            vectors = Vectors(vectors.table, _last(vectors.rows[:, None], queries, count)[:, 0])
        return View(_last(self.mask, queries, count), self.turn, vectors)


def _last(table: Tensor, queries: int, count: int) -> Tensor:
    """[N, ., B * Q, C] gives [N, ., B * q, C]."""
    sentences, heads, rows, columns = table.shape
    return table.view(sentences, heads, rows // queries, queries, columns)[:, :, :, -count:].flatten(2, 3)


def turn_of(positions: Tensor, width: int, base: float, *, interleaved: bool) -> Turn:
    """Angles of tokens at `positions` [B, T]: position / base^(2i / d) for pair i (Su et al. 2021, 2104.09864)."""
    powers = torch.arange(0, width, 2, device=positions.device).float() / width
    angles = positions[..., None].float() * (1.0 / base**powers)
    return Turn(angles.cos(), angles.sin(), interleaved)


def turned(values: Tensor, cosine: Tensor, sine: Tensor, *, interleaved: bool) -> Tensor:
    """Queries or keys [..., d], each pair of numbers turned by its angle [..., d / 2]."""
    left, right = (values[..., 0::2], values[..., 1::2]) if interleaved else values.chunk(2, -1)
    parts = (left * cosine - right * sine, right * cosine + left * sine)
    found = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    return found.to(values.dtype)


def vectors_of(queries: Tensor, keys: Tensor, width: int, furthest: int) -> Vectors:
    """NEZHA's sinusoids of the distances from `queries` [B, Q] to `keys` [B, K], clipped at `furthest` either way.

    (Wei et al. 2019, arXiv 1909.00204, section 3.1.)
    """
    distances = (keys[:, None, :] - queries[:, :, None]).clamp(-furthest, furthest) + furthest
    turn = turn_of(torch.arange(2 * furthest + 1, device=keys.device), width, 10000.0, interleaved=True)
    return Vectors(torch.stack((turn.sine, turn.cosine), -1).flatten(-2), distances)


def near(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """Which keys at positions [B, K] are at most `window` away from queries at [B, Q]: [B, 1, Q, K] bool."""
    return ((keys[:, None, :] - queries[:, :, None]).abs() <= window)[:, None]


def within(mask: Tensor, positions: Tensor, window: int) -> Tensor:
    """A bool mask [B, 1, T, T] of a full pass without what is further than `window` from tokens at `positions` [B, T].

    A query that would see nothing sees what it sees without a window: the softmax of nothing is no number.
    """
    local = mask & near(positions, positions, window)
    return local | (mask & ~local.any(3, keepdim=True))


def relative_bucket(distance: Tensor, *, buckets: int, furthest: int) -> Tensor:
    """T5's two-sided buckets of key position minus query position, as UniLM 2 uses them.

    Half of the buckets are for keys to the right; within a half the nearer distances have a bucket each, the further
    ones share logarithmic buckets up to `furthest`. (Raffel et al. 2020, arXiv 1910.10683, section 2.1.)
    """
    half = buckets // 2
    exact = half // 2
    absolute = distance.abs()
    scaled = torch.log(absolute.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)
    far = (exact + scaled.long()).clamp(max=half - 1)
    return (distance > 0).long() * half + torch.where(absolute < exact, absolute, far)


class RelativeBias(nn.Module):
    """One learnt bias per head and bucket, added to the attention scores of all layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.buckets, self.furthest = config.relative_buckets, config.relative_distance
        self.weight = nn.Parameter(torch.zeros(config.heads, config.relative_buckets))  # [A, buckets]

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Positions [B, Q] and [B, K] give the bias [B, A, Q, K]."""
        distance = key[:, None, :] - query[:, :, None]
        bucket = relative_bucket(distance, buckets=self.buckets, furthest=self.furthest)
        return functional.embedding(bucket, self.weight.T).permute(0, 3, 1, 2)
