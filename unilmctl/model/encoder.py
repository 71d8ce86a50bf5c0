"""The encoder: one forward that trains, scores and decodes.

Without a cache it is one full pass over rows; with a cache the tokens given are new ones, read after those in the
cache. The mask comes from the visibility rule in both cases, so the two agree to what the kernels' rounding allows.

Shapes: B rows or R = N x K beams, T tokens, D hidden width, A heads, S source tokens, V vocabulary.
"""

import torch
from torch import Tensor, nn

from unilmctl.model.cache import Block, Cache, KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.layers import Embeddings, LanguageModelHead, Layer, RelativeBias
from unilmctl.visibility import Slots, stack, visible


class Encoder(nn.Module):
    """A BERT-type Transformer with a language-model head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.relative = RelativeBias(config) if config.relative_buckets else None
        self.head = LanguageModelHead(config)
        self.pooler = nn.Linear(config.hidden, config.hidden) if config.pooler else None
        self.pair = nn.Linear(config.hidden, 2) if config.pair_head else None

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Random weights as BERT draws them: normal, biases 0, norms 1, the padding word 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data.normal_(0.0, self.config.initializer_range, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()
        self.embeddings.word.weight.data[self.config.pad].zero_()

    def forward(
        self, ids: Tensor, positions: Tensor, segments: Tensor, slots: Slots, cache: Cache | None = None
    ) -> tuple[Tensor, Block]:
        """New tokens [B, T] (or [R, T] after a cache) give hidden states [B, T, D] and their keys and values."""
        hidden = self.embeddings(ids, positions, segments)
        if cache is None:
            hidden, fresh = self._full(hidden, self._bias(slots, positions, slots, positions))
        else:
            hidden, fresh = self._step(hidden, positions, slots, cache)
        return hidden, Block(fresh, slots, positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] give scores over the vocabulary [..., V]."""
        result: Tensor = self.head(hidden, self.embeddings.word.weight)
        return result

    def _full(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, list[KeysValues]]:
        fresh = []
        for layer in self.layers:
            hidden, keys_values = layer(hidden, mask)
            fresh.append(keys_values)
        return hidden, fresh

    def _step(self, hidden: Tensor, positions: Tensor, slots: Slots, cache: Cache) -> tuple[Tensor, list[KeysValues]]:
        masks = self._step_masks(hidden.dtype, positions, slots, cache)
        fresh = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            own = None if cache.own is None else cache.own.layers[index]
            hidden, keys_values = layer.step(hidden, cache.shared.layers[index], own, masks)
            fresh.append(keys_values)
        return hidden, fresh

    def _step_masks(self, dtype: torch.dtype, positions: Tensor, slots: Slots, cache: Cache) -> tuple[Tensor, Tensor]:
        """Additive masks of a step: over the shared sources [N, ., K*Q, S], and over each beam's own tokens."""
        sentences = cache.shared.positions.shape[0]
        grouped = Slots(*(part.reshape(sentences, -1) for part in slots))
        to_source = self._bias(
            grouped, positions.reshape(sentences, -1), cache.shared.slots, cache.shared.positions, dtype
        )
        keys, key_positions = slots, positions
        if cache.own is not None:
            keys = stack([cache.own.slots, slots])
            key_positions = torch.cat((cache.own.positions, positions), 1)
        return to_source, self._bias(slots, positions, keys, key_positions, dtype)

    def _bias(
        self, query: Slots, query_positions: Tensor, key: Slots, key_positions: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The rule as a mask [B, 1 or A, Q, K]: bool, or float when there is a bias or a `dtype` is asked for."""
        mask = visible(query, key)[:, None]
        if self.relative is None and dtype is None:
            return mask
        bias = mask.new_zeros((), dtype=dtype or self.head.bias.dtype)
        if self.relative is not None:
            bias = self.relative(query_positions, key_positions).to(dtype or self.head.bias.dtype)
        return torch.where(mask, bias, float("-inf"))
