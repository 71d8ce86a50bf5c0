"""The parts of the encoder: embeddings, attention, feed-forward, relative positions.

Shapes: B rows (or R beams), T tokens, D hidden width, A heads, d = D / A, Q queries, K keys, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.model.cache import KeysValues
from unilmctl.model.config import ModelConfig


def gelu_tanh(values: Tensor) -> Tensor:
    """GELU in its tanh approximation (`gelu_new`)."""
    return functional.gelu(values, approximate="tanh")


ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": gelu_tanh,
    "relu": functional.relu,
}


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
        self.dropout = nn.Dropout(config.dropout)
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
        self.dropout = nn.Dropout(config.dropout)

    def project(self, hidden: Tensor) -> tuple[Tensor, KeysValues]:
        """[B, T, D] gives queries [B, A, T, d] and the tokens' keys and values."""
        batch, tokens, width = hidden.shape
        fused = self.qkv(hidden).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = fused.permute(2, 0, 3, 1, 4).unbind(0)
        return query, KeysValues(key, value)

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, residual and norm: [B, T, D] and mixed values [B, A, T, d] give [B, T, D]."""
        joined = mixed.transpose(1, 2).reshape(hidden.shape)
        result: Tensor = self.norm(hidden + self.dropout(self.output(joined)))
        return result

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, KeysValues]:
        """Full pass: [B, T, D] under a mask [B, 1 or A, T, T] (bool, or float to be added)."""
        query, fresh = self.project(hidden)
        mixed = self._attend(query, fresh, mask)
        return self.finish(hidden, mixed), fresh

    def _attend(self, query: Tensor, seen: KeysValues, mask: Tensor) -> Tensor:
        """Attention itself, in float32 where a CPU trains in bfloat16: its backward is three times as fast there."""
        rate = self.dropout_rate if self.training else 0.0
        if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                query, seen = query.float(), KeysValues(seen.keys.float(), seen.values.float())
                return functional.scaled_dot_product_attention(query, *seen, attn_mask=mask, dropout_p=rate)
        return functional.scaled_dot_product_attention(query, *seen, attn_mask=mask, dropout_p=rate)


def attend_shared(query: Tensor, shared: KeysValues, own: KeysValues, masks: tuple[Tensor, Tensor]) -> Tensor:
    """Attention of beams over their sentence's shared source and their own target, combined in one softmax.

    `query` [R, A, Q, d]; `shared` [N, A, S, d]; `own` [R, A, t, d]; `masks` are added to the scores,
    [N, 1 or A, K*Q, S] and [R, 1 or A, Q, t]. The beams of a sentence are treated as K*Q queries of it, so the source
    is never copied.
    Returns [R, A, Q, d].
    """
    rows, heads, queries, width = query.shape
    sentences, source = shared.keys.shape[0], shared.keys.shape[2]
    beams = rows // sentences
    query = query * (1.0 / math.sqrt(width))
    grouped = query.view(sentences, beams, heads, queries, width).transpose(1, 2)
    grouped = grouped.reshape(sentences, heads, beams * queries, width)
    to_source = grouped @ shared.keys.transpose(2, 3) + masks[0]  # [N, A, K*Q, S]
    to_source = to_source.view(sentences, heads, beams, queries, source).transpose(1, 2)
    to_source = to_source.reshape(rows, heads, queries, source)
    to_own = query @ own.keys.transpose(2, 3) + masks[1]  # [R, A, Q, t]
    precise = torch.promote_types(query.dtype, torch.float32)
    weights = torch.cat((to_source, to_own), dim=-1).softmax(dim=-1, dtype=precise).to(query.dtype)
    from_source = weights[..., :source].view(sentences, beams, heads, queries, source).transpose(1, 2)
    from_source = from_source.reshape(sentences, heads, beams * queries, source) @ shared.values
    from_source = from_source.view(sentences, heads, beams, queries, width).transpose(1, 2)
    return from_source.reshape(rows, heads, queries, width) + weights[..., source:] @ own.values


class Layer(nn.Module):
    """One Transformer layer, normalised after each half (BERT)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.inner = nn.Linear(config.hidden, config.feedforward)
        self.outer = nn.Linear(config.feedforward, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = ACTIVATION[config.activation]

    def feedforward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] gives [B, T, D]."""
        result: Tensor = self.norm(hidden + self.dropout(self.outer(self.activation(self.inner(hidden)))))
        return result

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, KeysValues]:
        """Full pass under `mask` (see `Attention.forward`)."""
        hidden, fresh = self.attention(hidden, mask)
        return self.feedforward(hidden), fresh

    def step(
        self, hidden: Tensor, shared: KeysValues, own: KeysValues | None, masks: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, KeysValues]:
        """Decoding step of R beams over cached keys and values (see `attend_shared`)."""
        query, fresh = self.attention.project(hidden)
        seen = fresh if own is None else own.append(fresh)
        hidden = self.attention.finish(hidden, attend_shared(query, shared, seen, masks))
        return self.feedforward(hidden), fresh


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
