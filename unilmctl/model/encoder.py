"""The encoder: a full pass that trains and scores, and a step that decodes.

`forward` is one full pass over rows; `step` reads new tokens after those in a cache. The mask comes from the visibility
rule in both cases and the layers are the same, so the two agree to what the kernels' rounding allows.

Shapes: B rows of a full pass, T tokens; N sentences, B beams each, R = N x B rows of a step, Q new tokens a row, C
columns of the cache; D hidden width, A heads, V vocabulary.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unilmctl.model.blocks import block_mask
from unilmctl.model.cache import Cache, KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.division import parts_of
from unilmctl.model.heads import NEXT_SENTENCE
from unilmctl.model.layers import Asked, Borrowed, Embeddings, LanguageModelHead, Layer, norm, steady_width
from unilmctl.model.positions import RelativeBias, View, near, turn_of, vectors_of, within
from unilmctl.model.scores import own_heads
from unilmctl.visibility import Slots, visible


class Encoder(nn.Module):
    """A BERT-type Transformer with a language-model head.

    It borrows the embeddings of a `lender`, if there is one. The `generator` of its configuration borrows its own.
    """

    def __init__(self, config: ModelConfig, lender: Embeddings | None = None) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # whether training computes what is inside a layer twice, instead of keeping it
        self.blocks = False  # whether training attends in blocks (see `require_blocks`)
        self.embeddings = Embeddings(config) if lender is None else Borrowed(config, lender)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.distinct_layers))
        self.norm = norm(config, config.hidden) if config.prenorm else None
        self.relative = RelativeBias(config) if config.relative_buckets else None
        self.head = LanguageModelHead(config)
        self.pooler = nn.Linear(config.hidden, config.hidden) if config.pooler else None
        self.pair = nn.Linear(config.hidden, 2) if config.pair_head else None
        self.extra = nn.ModuleDict(own_heads(config))
        self.generator = Encoder(config.generator, self.embeddings) if config.generator is not None else None

    @property
    def stack(self) -> list[Layer]:
        """The layers in the order of a pass, one that is shared as often as it is gone through."""
        return [cast(Layer, self.layers[index]) for index in self.config.order]

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Random weights as BERT draws them: normal, biases 0, norms 1, the padding word 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data.normal_(0.0, self.config.initializer_range, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()
        self.embeddings.word.weight.data[self.config.pad].zero_()
        if self.embeddings.inner is not None:
            self.embeddings.inner.weight.data.zero_()

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        segments: Tensor,
        slots: Slots,
        wanted: Tensor | None = None,
        *,
        inner: Tensor | None = None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Full pass: tokens [B, T] give hidden states [B, T, D], and keys and values of every layer.

        With `wanted`, flat slots (row * T + slot) [N] row after row, the result is [N, D], and the last layer works for
        those slots alone. With `recompute` nothing but hidden states is returned. `inner` [B, T] are second positions,
        which a model without a table of them does not see.
        """
        hidden = self.embeddings(ids, positions, segments, inner)
        views = self._full_views(slots, positions)
        asked = None if wanted is None else Asked.of(wanted, *ids.shape)
        fresh = []
        for number, (layer, view) in enumerate(zip(self.stack, views, strict=True), start=1):
            if asked is not None and number == self.config.layers:
                hidden, keys_values = layer(hidden, view.of(asked.queries), asked)
            elif self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(_hidden, layer, hidden, view, use_reentrant=False)
                continue
            else:
                hidden, keys_values = layer(hidden, view)
            fresh.append(keys_values)
        return self._finished(hidden), [] if self.recompute else fresh

    def read(
        self,
        ids: Tensor,
        positions: Tensor,
        segments: Tensor,
        slots: Slots,
        *,
        memory: torch.dtype,
        last: bool,
        ordered: bool = False,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Source pass: tokens [B, T] that all see each other give keys and values in `memory` of every layer.

        With `ordered` they see each other by the rule alone.
        Also hidden states [B, T, D]: the last layer's, or without `last` those that go into it, which saves its work.
        """
        hidden = self.embeddings(ids, positions, segments)
        if memory == torch.float32:
            views = self._full_views(slots, positions)
        else:
            seen = visible(slots if ordered else slots.select(slice(0, 1)), slots)[:, None]
            bias = torch.zeros((), device=ids.device) if self.relative is None else self.relative(positions, positions)
            mask = torch.where(seen, bias, float("-inf")).to(memory)
            views = self._views(mask, self._local_step(mask, positions, positions), positions, positions)
        fresh = []
        for number, (layer, view) in enumerate(zip(self.stack, views, strict=True), start=1):
            if number == self.config.layers and not last:
                fresh.append(layer.attention.project(hidden, view)[1])
            else:
                hidden, keys_values = layer.read(hidden, view, memory)
                fresh.append(keys_values)
        return self._finished(hidden), fresh

    def step(
        self,
        ids: Tensor,
        positions: Tensor,
        segments: Tensor,
        slots: Slots,
        cache: Cache,
        *,
        kept: int | Tensor,
        asked: int,
        inner: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """New tokens [R, Q] after those in the cache, of which the first `kept` a row, or `kept` [R, Q], stay there.

        Returns hidden states [R, q, D] of the last `asked` = q, and the last layer's attention weights [N, A, B * q, C]
        over the columns. `inner` [R, Q] as in `forward`.
        """
        hidden = self.embeddings(ids, positions, segments, inner)
        places = cache.place(positions)
        mask = cache.mask(slots, places, cache.tables[0].dtype)
        queries, keys = positions.view(cache.sentences, -1), cache.positions[: cache.sentences]
        if self.relative is not None:
            mask = mask + self.relative(queries, keys).to(mask.dtype)
        views = self._views(mask, self._local_step(mask, queries, keys), positions, keys)
        weights = mask
        for layer, table, view in zip(self.stack, cache.tables, views, strict=True):
            seen = view.last(ids.shape[1], asked) if table is cache.tables[-1] else view
            hidden, weights = layer.step(hidden, table, places.vectors, seen)
        cache.keep(places, kept)
        return self._finished(hidden), weights

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] give scores over the vocabulary [..., V]."""
        result: Tensor = self.head(hidden, self.embeddings.word.weight)
        return result

    def scores(self, head: str, hidden: Tensor, other: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """What the head of this name says of hidden states [N, D]; `model.heads` lists what each kind gives.

        A boundary head reads the states `other` [N, D] on the far side of the spans and places `offset` [N] in them.
        """
        kind = self.config.head(head).kind
        if kind == "boundary":
            return cast(Tensor, self.extra[head](hidden, other, offset, self.embeddings.word.weight))
        if self.pooler is not None and kind == "contrastive":
            return functional.normalize(self.pooler(hidden).float(), dim=-1)
        if self.pooler is not None and kind in ("class", "regression"):
            hidden = self.pooler(hidden).tanh()
        found = self.pair(hidden) if head == NEXT_SENTENCE and self.pair is not None else self.extra[head](hidden)
        return cast(Tensor, found[:, 0] if kind in ("regression", "replaced") else found)

    def parameters_of(self, head: str) -> list[nn.Parameter]:
        """The parameters that the head of this name ("lm" too) needs besides the encoder's own.

        Where there is a generator, the language model is the generator.
        """
        if head == "lm":
            return list((self.head if self.generator is None else self.generator).parameters())
        own = dict(self.extra.items()).get(head, self.pair if head == NEXT_SENTENCE else None)
        pooler = self.pooler if self.config.head(head).pooled else None
        return [parameter for module in (pooler, own) if module is not None for parameter in module.parameters()]

    def _finished(self, hidden: Tensor) -> Tensor:
        """What the last layer gives, normalised where the layers do not do it themselves."""
        return hidden if self.norm is None else self.norm(hidden)

    def _full_views(self, slots: Slots, positions: Tensor) -> list[View]:
        """What each layer of a full pass knows of its tokens, by the rule."""
        seen = visible(slots, slots)[:, None]
        mask = self._mask(seen, positions)
        local = self._mask(within(seen, positions, self.config.window), positions) if self.config.has_local else mask
        views = self._views(mask, local, positions, positions)
        if self.blocks and torch.is_grad_enabled():
            blocks = block_mask(slots)
            return [view._replace(blocks=blocks) for view in views]
        if not torch.is_grad_enabled() or seen.device.type != "cpu":
            return views
        parts = parts_of(seen[:, 0], slots.document)
        return [view._replace(parts=parts) for view in views]

    def _views(self, mask: Tensor, local: Tensor, positions: Tensor, keys: Tensor) -> list[View]:
        """What each layer knows of tokens at `positions` [R, Q] and keys at `keys` [N, K]; local layers have a mask of
        their own."""
        config, width = self.config, self.config.head_width
        vectors, turn, other = None, None, None
        if config.position == "relative":
            keys = functional.pad(keys, (0, mask.shape[3] - keys.shape[1]))
            vectors = vectors_of(positions.view(len(keys), -1), keys, width, config.relative_distance)
        elif config.position in ("rotary", "interleaved"):
            interleaved = config.position == "interleaved"
            turn = turn_of(positions, width, config.rotary_base, interleaved=interleaved)
            other = turn_of(positions, width, config.local_base, interleaved=interleaved) if config.has_local else None
        views = View(mask, turn, vectors), View(local, other, vectors)
        return [views[config.local(number)] for number in range(config.layers)]

    def _mask(self, seen: Tensor, positions: Tensor) -> Tensor:
        """A mask [B, 1, T, T] as layers want it, [B, 1 or A, T, T]: bool, or float when something is to be added."""
        mask, added = seen, self.relative is not None or self.config.position == "relative"
        if self.relative is not None:
            bias = self.relative(positions, positions).to(self.head.bias.dtype)
            mask = torch.where(mask, bias, float("-inf"))
        elif added:
            mask = torch.zeros_like(seen, dtype=self.head.bias.dtype).masked_fill_(~seen, -math.inf)
        if torch.is_grad_enabled():
            if added or mask.device.type != "cpu":
                return mask
            return torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        extra = steady_width(mask.shape[3]) - mask.shape[3]
        padded: Tensor = functional.pad(mask, (0, extra), value=float("-inf") if added else False)
        return padded

    def _local_step(self, mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """A mask [N, ., Q, K] that is added to the scores, of what is near: queries at [N, Q], keys at [N, K]."""
        if not self.config.has_local:
            return mask
        return mask.expand(-1, -1, queries.shape[1], -1).masked_fill(
            ~near(queries, keys, self.config.window), -math.inf
        )


def _hidden(layer: nn.Module, hidden: Tensor, view: View) -> Tensor:
    result: Tensor = layer(hidden, view)[0]
    return result
