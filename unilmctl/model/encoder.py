"""The encoder: a full pass that trains and scores, and a step that decodes.

`forward` is one full pass over rows; `step` reads new tokens after those in a cache. The mask comes from the visibility
rule in both cases and the layers are the same, so the two agree to what the kernels' rounding allows.

Shapes: B rows of a full pass, T tokens; N sentences, B beams each, R = N x B rows of a step, Q new tokens a row, C
columns of the cache; D hidden width, A heads, V vocabulary.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unilmctl.model.cache import Cache, KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.kernels import take
from unilmctl.model.layers import Asked, Embeddings, LanguageModelHead, Layer, RelativeBias, steady_width
from unilmctl.visibility import Slots, visible


class Encoder(nn.Module):
    """A BERT-type Transformer with a language-model head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # whether training computes what is inside a layer twice, instead of keeping it
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.distinct_layers))
        self.relative = RelativeBias(config) if config.relative_buckets else None
        self.head = LanguageModelHead(config)
        self.pooler = nn.Linear(config.hidden, config.hidden) if config.pooler else None
        self.pair = nn.Linear(config.hidden, 2) if config.pair_head else None

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

    def forward(
        self, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, wanted: Tensor | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Full pass: tokens [B, T] give hidden states [B, T, D], and keys and values of every layer.

        With `wanted`, flat slots (row * T + slot) [N] row after row, the result is [N, D], and the last layer works for
        those slots alone. With `recompute` nothing but hidden states is returned.
        """
        hidden = self.embeddings(ids, positions, segments)
        mask = self._mask(slots, positions)
        asked = None if wanted is None else Asked.of(wanted, *ids.shape)
        fresh = []
        for number, layer in enumerate(self.stack, start=1):
            if asked is not None and number == self.config.layers:
                hidden, keys_values = layer(hidden, take(mask, asked.queries), asked)
            elif self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(_hidden, layer, hidden, mask, use_reentrant=False)
                continue
            else:
                hidden, keys_values = layer(hidden, mask)
            fresh.append(keys_values)
        return hidden, [] if self.recompute else fresh

    def read(
        self, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, *, memory: torch.dtype, last: bool
    ) -> tuple[Tensor, list[KeysValues]]:
        """Source pass: tokens [B, T] that all see each other give keys and values in `memory` of every layer.

        Also hidden states [B, T, D]: the last layer's, or without `last` those that go into it, which saves its work.
        """
        hidden = self.embeddings(ids, positions, segments)
        if memory == torch.float32:
            mask = self._mask(slots, positions)
        else:
            seen = visible(slots.select(slice(0, 1)), slots)[:, None]
            bias = torch.zeros((), device=ids.device) if self.relative is None else self.relative(positions, positions)
            mask = torch.where(seen, bias, float("-inf")).to(memory)
        fresh = []
        for number, layer in enumerate(self.stack, start=1):
            if number == self.config.layers and not last:
                fresh.append(layer.attention.project(hidden)[1])
            else:
                hidden, keys_values = layer.read(hidden, mask, memory)
                fresh.append(keys_values)
        return hidden, fresh

    def step(
        self, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, cache: Cache, *, kept: int, asked: int
    ) -> tuple[Tensor, Tensor]:
        """New tokens [R, Q] after those in the cache, of which the first `kept` a row stay there.

        Returns hidden states [R, q, D] of the last `asked` = q, and the last layer's attention weights [N, A, B * q, C]
        over the columns.
        """
        hidden = self.embeddings(ids, positions, segments)
        places = cache.place(positions)
        mask = cache.mask(slots, places, cache.tables[0].dtype)
        if self.relative is not None:
            mask = mask + self._relative_step(self.relative, positions, cache, mask)
        weights = mask
        for layer, table in zip(self.stack, cache.tables, strict=True):
            if table is cache.tables[-1]:
                mask = _last_queries(mask, ids.shape[1], asked)
            hidden, weights = layer.step(hidden, table, places.vectors, mask)
        cache.keep(places, kept)
        return hidden, weights

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] give scores over the vocabulary [..., V]."""
        result: Tensor = self.head(hidden, self.embeddings.word.weight)
        return result

    def _mask(self, slots: Slots, positions: Tensor) -> Tensor:
        """The rule over a full pass [B, 1 or A, T, T]: bool, or float when there is a bias to add."""
        mask = visible(slots, slots)[:, None]
        if self.relative is not None:
            bias = self.relative(positions, positions).to(self.head.bias.dtype)
            mask = torch.where(mask, bias, float("-inf"))
        if torch.is_grad_enabled():
            if self.relative is not None or mask.device.type != "cpu":
                return mask
            return torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        extra = steady_width(mask.shape[3]) - mask.shape[3]
        padded: Tensor = functional.pad(mask, (0, extra), value=False if self.relative is None else float("-inf"))
        return padded

    @staticmethod
    def _relative_step(relative: RelativeBias, positions: Tensor, cache: Cache, mask: Tensor) -> Tensor:
        """The bias [N, A, B * Q, C] of new tokens at `positions` [R, Q] towards the cache's columns."""
        sentences, _, queries, _ = mask.shape
        bias: Tensor = relative(positions.view(sentences, queries), cache.positions[:sentences])
        return bias.to(mask.dtype)


def _hidden(layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    result: Tensor = layer(hidden, mask)[0]
    return result


def _last_queries(mask: Tensor, queries: int, asked: int) -> Tensor:
    """The mask [N, ., B * Q, C] of the last `asked` = q of each row's `queries` = Q: [N, ., B * q, C]."""
    sentences, heads, rows, columns = mask.shape
    return mask.view(sentences, heads, rows // queries, queries, columns)[:, :, :, -asked:].flatten(2, 3)
