"""Attention that skips blocks of a row in which nobody sees anybody (FlexAttention: Dong et al. 2024, 2412.05496).

The mask is the visibility rule over the same three integers, asked block by block. In rows that many examples share
most blocks are empty. On a GPU the kernel is compiled when it is first used; on a processor it is written out, for
comparison, and knows no backward pass.

Shapes: B rows, T tokens, A heads, d head width.
"""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from unilmctl.errors import ModelError, UsageError
from unilmctl.model.cache import KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.visibility import Slots, mask_mod


def block_mask(slots: Slots) -> BlockMask:
    """Who sees whom in rows [B, T], in blocks."""
    rows, tokens = slots.time.shape
    return create_block_mask(mask_mod(slots, slots), rows, None, tokens, tokens, device=slots.time.device)


def attend_blocks(query: Tensor, seen: KeysValues, blocks: BlockMask) -> Tensor:
    """Attention of all tokens of a full pass: [B, A, T, d] gives [B, A, T, d]."""
    kernel = _compiled() if query.is_cuda else flex_attention
    return cast(Tensor, kernel(query, *seen, block_mask=blocks))


def require_blocks(config: ModelConfig, device: torch.device) -> None:
    """UsageError for a device, ModelError for a model, that cannot train with block masks."""
    if device.type == "cpu":
        raise UsageError("block_masks: a processor cannot train with them", "device: cuda, or block_masks: false")
    if config.attention_dropout:
        what = f"attention dropout is {config.attention_dropout}"
        raise ModelError(f"block_masks: {what}, and this kernel drops nothing", "set model.attention_dropout: 0")
    if config.relative_buckets or config.position == "relative" or config.has_local:
        raise ModelError("block_masks: scores of this model depend on distances", "set block_masks: false")


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention)
