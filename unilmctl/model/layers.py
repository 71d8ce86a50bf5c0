"""The parts of the encoder: embeddings, attention, feed-forward, relative positions.

Shapes: B rows (or R beams), T tokens, D hidden width, A heads, d = D / A, Q queries, K keys, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.model.cache import KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.kernels import dropout, mix, take


class Asked(NamedTuple):
    """The slots that the last layer of a full pass works for.

    `slots` [N] are flat (row * T + slot); `queries` [B, Q] are each row's, filled up with slot 0; `places` [N] says
    where in the flattened queries each slot is.
    """

    slots: Tensor
    queries: Tensor
    places: Tensor

    @classmethod
    def of(cls, slots: Tensor, rows: int, tokens: int) -> "Asked":
        """Flat slots [N], row after row, of `rows` rows of so many `tokens`."""
        row = slots // tokens
        counts = torch.bincount(row, minlength=rows)
        within = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[row]
        width = int(counts.max())
        queries = slots.new_zeros(rows, width)
        queries[row, within] = slots % tokens
        return cls(slots, queries, row * width + within)


class Dropout(nn.Dropout):
    """Dropout while training, from fewer random numbers (see `kernels.dropout`)."""

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape."""
        return dropout(values, self.p) if self.training else values


def gelu(values: Tensor) -> Tensor:
    """GELU, in place where no gradient will need what was there."""
    if torch.is_grad_enabled():
        return functional.gelu(values)
    return cast(Tensor, torch.ops.aten.gelu_(values))


def gelu_tanh(values: Tensor) -> Tensor:
    """GELU in its tanh approximation (`gelu_new`)."""
    if torch.is_grad_enabled():
        return functional.gelu(values, approximate="tanh")
    return cast(Tensor, torch.ops.aten.gelu_(values, approximate="tanh"))


def relu(values: Tensor) -> Tensor:
    """ReLU, as in place as `gelu`."""
    return functional.relu(values, inplace=not torch.is_grad_enabled())


ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "gelu_new": gelu_tanh, "relu": relu}


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


class Embeddings(nn.Module):
    """Word + position + segment, normalised; projected to the hidden width where that differs (ELECTRA)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.word = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.positions, width)
        self.segment = nn.Embedding(config.segments, width) if config.segments else None
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.dropout = Dropout(config.dropout)
        self.project = nn.Linear(width, config.hidden) if width != config.hidden else None
        if config.reserved_positions:  # never read: kept so that the family's file can be written back bit-equal
            self.register_buffer("reserved", torch.zeros(config.reserved_positions, width))

    def forward(self, ids: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Three [B, T] give [B, T, D]."""
        total = self.word(ids) + self.position(positions)
        if self.segment is not None:
            total = total + self.segment(segments)
        hidden: Tensor = self.dropout(self.norm(total))
        return hidden if self.project is None else self.project(hidden)


class Attention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout_rate = config.attention_dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.output = nn.Linear(config.hidden, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_epsilon)
        self.dropout = Dropout(config.dropout)

    def project(self, hidden: Tensor) -> tuple[Tensor, KeysValues]:
        """[B, T, D] gives queries [B, A, T, d] and the tokens' keys and values."""
        query, key, value = self._fused(hidden).unbind(0)
        return query, KeysValues(key, value)

    def _fused(self, hidden: Tensor) -> Tensor:
        """[B, T, D] gives queries, keys and values as one view [3, B, A, T, d]."""
        batch, tokens, width = hidden.shape
        fused: Tensor = self.qkv(hidden).view(batch, tokens, 3, self.heads, width // self.heads)
        return fused.permute(2, 0, 3, 1, 4)

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, residual and norm: [..., D] and mixed values in the same order give [..., D]."""
        joined = mixed.reshape(hidden.shape)
        result: Tensor = self.norm(hidden + self.dropout(self.output(joined)))
        return result

    def forward(self, hidden: Tensor, mask: Tensor, asked: Asked | None = None) -> tuple[Tensor, KeysValues]:
        """Full pass: [B, T, D] under a mask [B, 1 or A, T, T] (bool, or float to be added).

        With `asked` the mask is [B, 1 or A, Q, T], and the result [N, D], of those slots alone.
        """
        fused = self._fused(hidden)
        fresh = KeysValues(fused[1], fused[2])
        queries = None if asked is None else asked.queries
        if self.training and self.dropout_rate and torch.is_grad_enabled() and fused.device.type == "cpu":
            mixed = mix(fused.contiguous(), mask, self.dropout_rate, queries)  # torch has no fast way that drops
        else:
            mixed = self._attend(fused[0] if queries is None else take(fused[0], queries), fresh, mask)
        mixed = mixed.transpose(1, 2)  # [B, Q, A, d]
        if asked is None:
            return self.finish(hidden, mixed), fresh
        chosen = mixed.flatten(0, 1).index_select(0, asked.places)  # [N, A, d]
        return self.finish(hidden.flatten(0, 1).index_select(0, asked.slots), chosen), fresh

    def read(self, hidden: Tensor, mask: Tensor, memory: torch.dtype) -> tuple[Tensor, KeysValues]:
        """Source pass as `forward`, but keys and values are kept in `memory`, and unless that is float32 used in it.

        `mask` is then added to the scores.
        """
        if memory == torch.float32:
            return self(hidden, mask)  # type: ignore[no-any-return]
        query, fresh = self.project(hidden)
        kept = KeysValues(*(torch.empty(part.shape, dtype=memory, device=part.device).copy_(part) for part in fresh))
        mixed, _ = attend(torch.empty_like(kept.keys).copy_(query), *kept, mask)
        return self.finish(hidden, mixed.to(hidden.dtype).transpose(1, 2)), kept

    def step(self, hidden: Tensor, table: Tensor, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """New tokens [R, Q, D] are written into a cache's `table` at `vectors` (see `Places`) and read from it.

        `mask` [N, 1 or A, B * q, C] is added to the scores of the last q <= Q tokens of each row, the only ones that
        go on. Returns [R, q, D] and the weights [N, A, B * q, C].
        """
        sentences, _, queries, _ = mask.shape
        width, asked = table.shape[4], sentences * queries // len(hidden)
        fused = self.qkv(hidden).view(-1, 3, self.heads, width)  # [R * Q, 3, A, d]
        fresh = fused[:, 1:].to(table.dtype).reshape(-1, width)
        _words(table.view(-1, width)).index_copy_(0, vectors, _words(fresh))
        query = table.new_empty(sentences, self.heads, queries, width)
        last = fused[:, 0].view(len(hidden), -1, self.heads, width)[:, -asked:]
        query.copy_(last.reshape(sentences, queries, self.heads, width).transpose(1, 2))
        keys, values = table[:, :sentences].unbind(0)
        mixed, weights = attend(query, keys, values, mask)
        joined = hidden.new_empty(sentences, queries, self.heads, width).copy_(mixed.transpose(1, 2))
        hidden = hidden[:, -asked:]
        result: Tensor = self.norm(hidden + self.output(joined.view(hidden.shape)))
        return result, weights

    def _attend(self, query: Tensor, seen: KeysValues, mask: Tensor) -> Tensor:
        """Attention itself, in float32 where a CPU trains in bfloat16: its backward is three times as fast there.

        A mask that is wider than the keys asks for them to be padded (`steady_width`).
        """
        rate = self.dropout_rate if self.training else 0.0
        if extra := mask.shape[3] - seen.keys.shape[2]:
            seen = KeysValues(*(functional.pad(part, (0, 0, 0, extra)) for part in seen))
        if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                query, seen = query.float(), KeysValues(seen.keys.float(), seen.values.float())
                return functional.scaled_dot_product_attention(query, *seen, attn_mask=mask, dropout_p=rate)
        return functional.scaled_dot_product_attention(query, *seen, attn_mask=mask, dropout_p=rate)


def steady_width(tokens: int) -> int:
    """How many keys a full pass must have, of which `tokens` are real, for its float32 sums not to depend on padding.

    Matrix kernels sum up to 192 numbers in one go, and more than that in parts of 192 if there are 384 at least, else
    in two halves, wherever those fall; attention takes 512 keys at a time.
    """
    width = -(-tokens // 16) * 16
    rest = width % 512
    return width - rest + 384 if 192 < rest < 384 else width


def _words(vectors: Tensor) -> Tensor:
    """Vectors [X, d] as words of 16 bytes, if they can be: to copy them takes a half to a third of the time."""
    whole = vectors.shape[1] * vectors.element_size() % 16 == 0
    return vectors.view(torch.complex128) if whole else vectors


STEADY = 128
"""Columns that are summed at a time in float32, so that a sum never depends on how many columns lie behind it: matrix
kernels divide a long sum into parts that depend on its length, and rounding follows."""


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of few queries over long tables, written out: they are read where they lie and never copied.

    `query` [N, A, M, d]; `keys` and `values` [N, A, L, d]; `mask` [N, 1 or A, M, L] is added to the scores.
    Returns the mixed values [N, A, M, d] and the weights [N, A, M, L].
    """
    scale = 1.0 / math.sqrt(query.shape[3])
    flat_query, flat_keys, flat_values = query.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
    unused = query.new_empty(1, 1, 1)
    scores = torch.baddbmm(unused, flat_query, flat_keys.transpose(1, 2), beta=0, alpha=scale)
    weights = (scores.view(*query.shape[:3], -1).add_(mask)).softmax(-1)
    flat = weights.flatten(0, 1)
    block = STEADY if query.dtype == torch.float32 else flat.shape[2]
    mixed = torch.bmm(flat[:, :, :block], flat_values[:, :block])
    for start in range(block, flat.shape[2], block):
        mixed.baddbmm_(flat[:, :, start : start + block], flat_values[:, start : start + block])
    return mixed.view(query.shape), weights


class Layer(nn.Module):
    """One Transformer layer, normalised after each half (BERT)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.inner = nn.Linear(config.hidden, config.feedforward)
        self.outer = nn.Linear(config.feedforward, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_epsilon)
        self.dropout = Dropout(config.dropout)
        self.activation = ACTIVATION[config.activation]

    def feedforward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] gives [B, T, D]."""
        result: Tensor = self.norm(hidden + self.dropout(self.outer(self.activation(self.inner(hidden)))))
        return result

    def forward(self, hidden: Tensor, mask: Tensor, asked: Asked | None = None) -> tuple[Tensor, KeysValues]:
        """Full pass under `mask` (see `Attention.forward`)."""
        hidden, fresh = self.attention(hidden, mask, asked)
        return self.feedforward(hidden), fresh

    def read(self, hidden: Tensor, mask: Tensor, memory: torch.dtype) -> tuple[Tensor, KeysValues]:
        """Source pass (see `Attention.read`)."""
        hidden, kept = self.attention.read(hidden, mask, memory)
        return self.feedforward(hidden), kept

    def step(self, hidden: Tensor, table: Tensor, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Decoding step over cached keys and values (see `Attention.step`)."""
        hidden, weights = self.attention.step(hidden, table, vectors, mask)
        return self.feedforward(hidden), weights


class LanguageModelHead(nn.Module):
    """Transform, norm, and the word embeddings as output matrix (tied), plus a bias per word."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.embedding_size)
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.activation = ACTIVATION[config.head_activation]

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """[..., D] and the word embeddings [V, E] give logits [..., V]."""
        return functional.linear(self.norm(self.activation(self.dense(hidden))), words, self.bias)
