"""Weights laid out as the CPU's matrix kernels read them: once, instead of at every step.

A decoding step multiplies few rows with every weight of the model, so that the time goes into reading weights. oneDNN
reads them faster in an order of its own: by a tenth to a fifth for the layers, and twice as fast for the vocabulary.

Shapes: D inputs, E outputs, V vocabulary.
"""

from typing import cast

import torch
from torch import Tensor, nn

from unilmctl.model import Encoder
from unilmctl.model.layers import LanguageModelHead

ROWS = 64
"""Rows of a typical step, for which the order is chosen; any number of rows works."""


def pack(encoder: Encoder) -> Encoder:
    """Packs the weights of `encoder` in place and returns it; from then on it can decode and score, and nothing else.

    Nothing happens where this machine or this number format has no packed kernels.
    """
    words = encoder.embeddings.word.weight
    if not _can_pack(words):
        return encoder
    linears = [
        (module, name, child)
        for module in encoder.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.Linear)
    ]
    for module, name, child in linears:
        setattr(module, name, PackedLinear(child.weight, child.bias))
    encoder.head = cast(LanguageModelHead, PackedHead(encoder.head, words))
    return encoder


class PackedLinear(nn.Module):
    """A linear layer of weights [E, D] and biases [E] that can only be applied."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.bias = bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def forward(self, values: Tensor) -> Tensor:
        """[..., D] gives [..., E]."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")
        return result


class PackedHead(nn.Module):
    """The language-model head with its output matrix packed: called like `LanguageModelHead`."""

    def __init__(self, head: LanguageModelHead, words: Tensor) -> None:
        super().__init__()
        self.dense, self.norm, self.activation, self.bias = head.dense, head.norm, head.activation, head.bias
        self.output = PackedLinear(words, head.bias)

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """[..., D] gives logits [..., V]; `words` were packed before."""
        return cast(Tensor, self.output(self.norm(self.activation(self.dense(hidden)))))


def _can_pack(weight: Tensor) -> bool:
    if not torch._C._has_mkldnn or weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
