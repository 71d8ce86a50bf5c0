"""The parts of the encoder: embeddings, attention, feed-forward, relative positions.

Shapes: B rows (or R beams), T tokens, D hidden width, A heads, d = D / A, Q queries, K keys, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.model.blocks import attend_blocks
from unilmctl.model.cache import KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.division import Parts, widest
from unilmctl.model.kernels import dropout, mix, take, words
from unilmctl.model.positions import View, turned

LONG = 1024
"""Keys that a query may see up to which a CPU trains by `kernels.mix` without dropout too, whose tables they fill."""


class Asked(NamedTuple):
    """The slots that the last layer of a full pass works for.

    `slots` [N] are flat (row * T + slot); `queries` [B, Q] are each row's, filled up with its last; `places` [N] says
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
        queries = slots.new_full((rows, width), tokens - 1)
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


def norm(config: ModelConfig, width: int) -> nn.LayerNorm:
    """The family's norm of vectors of this width."""
    return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Word + position + segment + task, as far as there are tables, normalised; projected where config says so.

    A table of second positions (GLM, arXiv 2103.10360) starts at zero, and its entry 0, for text, stays there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.word = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.positions, width) if config.position == "absolute" else None
        self.segment = nn.Embedding(config.segments, width) if config.segments else None
        self.task = nn.Embedding(config.tasks, width) if config.tasks else None
        self.inner = nn.Embedding(config.inner_positions, width, padding_idx=0) if config.inner_positions else None
        self.norm = norm(config, width)
        self.dropout = Dropout(config.dropout)
        self.project = nn.Linear(width, config.hidden) if config.projected else None
        if config.reserved_positions:  # never read: kept so that the family's file can be written back bit-equal
            self.register_buffer("reserved", torch.zeros(config.reserved_positions, width))

    def forward(self, ids: Tensor, positions: Tensor, segments: Tensor, inner: Tensor | None = None) -> Tensor:
        """Three or four [B, T] give [B, T, D]."""
        total = self.word(ids)
        if self.position is not None:
            total = total + self.position(positions)
        if self.segment is not None:
            total = total + self.segment(segments)
        if self.task is not None:
            total = total + self.task.weight[0]
        if self.inner is not None and inner is not None:
            total = total + self.inner(inner)
        hidden: Tensor = self.dropout(self.norm(total))
        return hidden if self.project is None else self.project(hidden)


class Borrowed(Embeddings):
    """The embeddings of another model through a projection of its own: what is learnt in them is learnt for both.

    They stay the lender's: they are no parameters of this module.
    """

    def __init__(self, config: ModelConfig, lender: Embeddings) -> None:
        nn.Module.__init__(self)
        self.project = nn.Linear(config.embedding_size, config.hidden) if config.projected else None
        parts = ("word", "position", "segment", "task", "inner", "norm", "dropout")
        self.__dict__.update({name: getattr(lender, name) for name in parts})


class Attention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values.

    Its norm is that of the result, or, with `prenorm`, that of what comes in.
    """

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.heads, self.prenorm = config.heads, config.prenorm
        self.dropout_rate = config.attention_dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=config.linear_bias)
        self.output = nn.Linear(config.hidden, config.hidden, bias=config.linear_bias)
        done = config.prenorm and number == 0  # by the embeddings
        self.norm = nn.Identity() if done else norm(config, config.hidden)
        self.dropout = Dropout(config.dropout)

    def project(self, hidden: Tensor, view: View) -> tuple[Tensor, KeysValues]:
        """[B, T, D] gives queries [B, A, T, d] and the tokens' keys and values."""
        query, key, value = self._fused(hidden, view).unbind(0)
        return query, KeysValues(key, value)

    def _fused(self, hidden: Tensor, view: View) -> Tensor:
        """[B, T, D] gives queries, keys and values as one view [3, B, A, T, d]."""
        batch, tokens, width = hidden.shape
        fused: Tensor = self._projected(hidden).view(batch, tokens, 3, self.heads, width // self.heads)
        fused = fused.permute(2, 0, 3, 1, 4)
        if view.turn is None:
            return fused
        cosine, sine, interleaved = view.turn
        return torch.cat((turned(fused[:2], cosine[:, None], sine[:, None], interleaved=interleaved), fused[2:]))

    def _projected(self, hidden: Tensor) -> Tensor:
        """[..., D] gives queries, keys and values side by side [..., 3 * D]."""
        result: Tensor = self.qkv(self.norm(hidden) if self.prenorm else hidden)
        return result

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, residual and norm: [..., D] and mixed values in the same order give [..., D]."""
        joined = mixed.reshape(hidden.shape)
        result: Tensor = hidden + self.dropout(self.output(joined))
        return result if self.prenorm else self.norm(result)

    def forward(self, hidden: Tensor, view: View, asked: Asked | None = None) -> tuple[Tensor, KeysValues]:
        """Full pass: [B, T, D], whose tokens see each other by `view`, its mask [B, 1 or A, T, T].

        With `asked` the mask is [B, 1 or A, Q, T], and the result [N, D], of those slots alone.
        """
        fused = self._fused(hidden, view)
        fresh = KeysValues(fused[1], fused[2])
        queries = None if asked is None else asked.queries
        query = fused[0] if queries is None else take(fused[0], queries)
        rate = self.dropout_rate if self.training else 0.0
        if view.blocks is not None:
            mixed = attend_blocks(query, fresh, view.blocks)
        elif view.vectors is not None:
            mixed, _ = attend(query, *_widened(fresh, view.mask.shape[3]), view, rate)
        elif torch.is_grad_enabled() and fused.is_cpu and (rate or widest(view.parts, hidden.shape[1]) <= LONG):
            mixed = mix(fused.contiguous(), view.mask, rate, queries, view.parts)
        else:
            mixed = self._attend(query, fresh, view.mask, view.parts)
        mixed = mixed.transpose(1, 2)  # [B, Q, A, d]
        if asked is None:
            return self.finish(hidden, mixed), fresh
        chosen = mixed.flatten(0, 1).index_select(0, asked.places)  # [N, A, d]
        return self.finish(hidden.flatten(0, 1).index_select(0, asked.slots), chosen), fresh

    def read(self, hidden: Tensor, view: View, memory: torch.dtype) -> tuple[Tensor, KeysValues]:
        """Source pass as `forward`, but keys and values are kept in `memory`, and unless that is float32 used in it.

        The view's mask is then added to the scores.
        """
        if memory == torch.float32:
            return self(hidden, view)  # type: ignore[no-any-return]
        query, fresh = self.project(hidden, view)
        kept = KeysValues(*(torch.empty(part.shape, dtype=memory, device=part.device).copy_(part) for part in fresh))
        mixed, _ = attend(torch.empty_like(kept.keys).copy_(query), *kept, view)
        return self.finish(hidden, mixed.to(hidden.dtype).transpose(1, 2)), kept

    def step(self, hidden: Tensor, table: Tensor, vectors: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """New tokens [R, Q, D] are written into a cache's `table` at `vectors` (see `Places`) and read from it.

        The view's mask [N, 1 or A, B * q, C] is added to the scores of the last q <= Q tokens of each row, the only
        ones that go on. Returns [R, q, D] and the weights [N, A, B * q, C].
        """
        sentences, _, queries, _ = view.mask.shape
        width, asked = table.shape[4], sentences * queries // len(hidden)
        fused = self._projected(hidden).view(-1, 3, self.heads, width)  # [R * Q, 3, A, d]
        if view.turn is not None:
            cosine, sine = (part.view(len(fused), 1, 1, -1) for part in view.turn[:2])
            turn = turned(fused[:, :2], cosine, sine, interleaved=view.turn.interleaved)
            fused = torch.cat((turn, fused[:, 2:]), 1)
        fresh = fused[:, 1:].to(table.dtype).reshape(-1, width)
        words(table.view(-1, width)).index_copy_(0, vectors, words(fresh))
        query = table.new_empty(sentences, self.heads, queries, width)
        last = fused[:, 0].view(len(hidden), -1, self.heads, width)[:, -asked:]
        query.copy_(last.reshape(sentences, queries, self.heads, width).transpose(1, 2))
        keys, values = table[:, :sentences].unbind(0)
        mixed, weights = attend(query, keys, values, view)
        joined = hidden.new_empty(sentences, queries, self.heads, width).copy_(mixed.transpose(1, 2))
        hidden = hidden[:, -asked:]
        return self.finish(hidden, joined.view(hidden.shape)), weights

    def _attend(self, query: Tensor, seen: KeysValues, mask: Tensor, parts: Parts = ()) -> Tensor:
        """Attention itself, in float32 where a CPU trains in bfloat16: its backward is three times as fast there.

        A mask that is wider than the keys asks for them to be padded (`steady_width`). For `parts` see `View`.
        """
        if parts:
            found: dict[int | None, list[Tensor]] = {}
            for rows, asked, keys in parts:
                near, added = KeysValues(*(table[rows, :, keys] for table in seen)), mask[rows, :, asked, keys]
                found.setdefault(rows.start, []).append(self._attend(query[rows, :, asked], near, added))
            return torch.cat([torch.cat(row, 2) for row in found.values()])
        rate = self.dropout_rate if self.training else 0.0
        seen = _widened(seen, mask.shape[3])
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


def _widened(seen: KeysValues, width: int) -> KeysValues:
    """Keys and values [B, A, T, d] padded to this many tokens."""
    extra = width - seen.keys.shape[2]
    return KeysValues(*(functional.pad(part, (0, 0, 0, extra)) for part in seen)) if extra else seen


STEADY = 128
"""Columns that are summed at a time in float32, so that a sum never depends on how many columns lie behind it: matrix
kernels divide a long sum into parts that depend on its length, and rounding follows."""


def attend(query: Tensor, keys: Tensor, values: Tensor, view: View, rate: float = 0.0) -> tuple[Tensor, Tensor]:
    """Attention of few queries over long tables, written out: they are read where they lie and never copied.

    `query` [N, A, M, d]; `keys` and `values` [N, A, L, d]; the view's mask [N, 1 or A, M, L] is added to the scores;
    weights are dropped at `rate`. Returns the mixed values [N, A, M, d] and the weights [N, A, M, L].
    """
    mask = view.mask if view.vectors is None else view.mask + view.vectors.scores(query)
    scale = 1.0 / math.sqrt(query.shape[3])
    flat_query, flat_keys, flat_values = query.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
    unused = query.new_empty(1, 1, 1)
    scores = torch.baddbmm(unused, flat_query, flat_keys.transpose(1, 2), beta=0, alpha=scale)
    weights = dropout((scores.view(*query.shape[:3], -1).add_(mask)).softmax(-1), rate)
    flat = weights.flatten(0, 1)
    block = STEADY if query.dtype == torch.float32 else flat.shape[2]
    mixed = torch.bmm(flat[:, :, :block], flat_values[:, :block])
    for start in range(block, flat.shape[2], block):
        mixed.baddbmm_(flat[:, :, start : start + block], flat_values[:, start : start + block])
    mixed = mixed.view(query.shape)
    return mixed if view.vectors is None else mixed + view.vectors.mixed(weights), weights


class Layer(nn.Module):
    """One Transformer layer, normalised after each half (BERT) or before it (ModernBERT)."""

    def __init__(self, config: ModelConfig, number: int) -> None:
        """`number` is its place among the layers, from 0."""
        super().__init__()
        self.prenorm, self.gated = config.prenorm, config.gated
        self.attention = Attention(config, number)
        width = config.feedforward * (2 if config.gated else 1)
        self.inner = nn.Linear(config.hidden, width, bias=config.linear_bias)
        self.outer = nn.Linear(config.feedforward, config.hidden, bias=config.linear_bias)
        self.norm = norm(config, config.hidden)
        self.dropout = Dropout(config.dropout)
        self.activation = ACTIVATION[config.activation]

    def feedforward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] gives [B, T, D]."""
        inner = self.inner(self.norm(hidden) if self.prenorm else hidden)
        if self.gated:
            active, gate = inner.chunk(2, -1)  # (Shazeer 2020, arXiv 2002.05202)
            inner = self.activation(active.contiguous()) * gate  # strided numbers are rounded in another way
        else:
            inner = self.activation(inner)
        result: Tensor = hidden + self.dropout(self.outer(inner))
        return result if self.prenorm else self.norm(result)

    def forward(self, hidden: Tensor, view: View, asked: Asked | None = None) -> tuple[Tensor, KeysValues]:
        """Full pass (see `Attention.forward`)."""
        hidden, fresh = self.attention(hidden, view, asked)
        return self.feedforward(hidden), fresh

    def read(self, hidden: Tensor, view: View, memory: torch.dtype) -> tuple[Tensor, KeysValues]:
        """Source pass (see `Attention.read`)."""
        hidden, kept = self.attention.read(hidden, view, memory)
        return self.feedforward(hidden), kept

    def step(self, hidden: Tensor, table: Tensor, vectors: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Decoding step over cached keys and values (see `Attention.step`)."""
        hidden, weights = self.attention.step(hidden, table, vectors, view)
        return self.feedforward(hidden), weights


class LanguageModelHead(nn.Module):
    """Transform, norm, and the word embeddings as output matrix (tied), plus a bias per word."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.embedding_size, bias=config.linear_bias)
        self.norm = norm(config, config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.activation = ACTIVATION[config.head_activation]

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """[..., D] and the word embeddings [V, E] give logits [..., V]."""
        return functional.linear(self.norm(self.activation(self.dense(hidden))), words, self.bias)
