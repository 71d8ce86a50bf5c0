"""Weights laid out as the CPU's matrix kernels read them: once, instead of at every step.

A decoding step multiplies few rows with every weight of the model, so that the time goes into reading weights. oneDNN
reads them faster in an order of its own, and FBGEMM reads a byte for each instead of four.

Shapes: D inputs, E outputs, V vocabulary.
"""

import math
import warnings
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.decoding.precision import int8_engine
from unilmctl.model import Encoder
from unilmctl.model.layers import LanguageModelHead
from unilmctl.model.memory import keep_freed_memory, return_freed_memory

ROWS = 64
"""Rows of a typical step, for which the order is chosen; any number of rows works."""

CHUNK = 128
"""The packed vocabulary is padded to a multiple of this with words that are never likely: a search looks at the scores
in pieces of equal size."""

PART = 2048
"""Outputs whose weights are rounded at a time."""

WIDE = 8192
"""Layers with more outputs than this, which is the vocabulary's, are better off with oneDNN's int8 kernels."""

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.float32}
"""In what format hidden states are kept beside weights of each."""


def pack(encoder: Encoder, dtype: str = "float32") -> Encoder:
    """Packs the weights of `encoder` in place and returns it; from then on it can decode and score, and nothing else.

    `dtype` is a settled format (see `settle`). Where this machine has no packed kernels for a floating-point format,
    the weights are only converted.
    """
    encoder.to(FORMATS[dtype])
    words = encoder.embeddings.word.weight
    if dtype != "int8" and not _can_pack(words):
        return encoder
    kind = QuantizedLinear if dtype == "int8" else PackedLinear
    rooms = [module for module in encoder.modules() if not isinstance(module, nn.Linear)]
    for module in rooms:  # nothing else holds a layer that was packed: its memory is free for the next one
        for name in [name for name, child in module.named_children() if isinstance(child, nn.Linear)]:
            layer = getattr(module, name)
            setattr(module, name, kind(layer.weight, layer.bias))
    output = kind(words, encoder.head.bias, -(-len(words) // CHUNK) * CHUNK)
    encoder.head = cast(LanguageModelHead, PackedHead(encoder.head, output))
    return_freed_memory()  # that of the unpacked weights
    keep_freed_memory(all_sizes=False)
    return encoder


class PackedLinear(nn.Module):
    """A linear layer of weights [E, D] and biases [E], or none, that can only be applied."""

    def __init__(self, weight: Tensor, bias: Tensor | None, outputs: int | None = None) -> None:
        """With `outputs` above E, the further ones are -inf."""
        super().__init__()
        outputs = outputs or len(weight)
        table = functional.pad(weight.detach(), (0, 0, 0, outputs - len(weight)))
        self.bias = _extended(bias, outputs)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(table, ROWS)

    def forward(self, values: Tensor) -> Tensor:
        """[..., D] gives [..., E]."""
        if values.numel() == values.shape[-1]:  # a lone row has a kernel of its own, whose sums are rounded otherwise
            return self._applied(values.reshape(1, -1).expand(2, -1))[0].view(*values.shape[:-1], -1)
        return self._applied(values)

    def _applied(self, values: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")
        return result


class QuantizedLinear(nn.Module):
    """A linear layer of weights in int8, one scale for each output; inputs are rounded to a byte for each product."""

    def __init__(self, weight: Tensor, bias: Tensor | None, outputs: int | None = None) -> None:
        super().__init__()
        outputs = outputs or len(weight)
        scales = torch.ones(outputs, dtype=torch.double)
        rounded = torch.zeros(outputs, weight.shape[1], dtype=torch.int8)
        for start in range(0, len(weight), PART):
            part = weight.detach()[start : start + PART].float()
            rows = slice(start, start + len(part))
            scale = part.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            scales[rows], rounded[rows] = scale[:, 0], (part / scale).round_()
        previous = torch.backends.quantized.engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that these functions will move one day
            torch.backends.quantized.engine = int8_engine(wide=outputs > WIDE) or previous
            table = torch._make_per_channel_quantized_tensor(rounded, scales, torch.zeros(outputs, dtype=torch.long), 0)
            self.packed = torch.ops.quantized.linear_prepack(table, _extended(bias, outputs))
        torch.backends.quantized.engine = previous
        self.narrow = not torch.cpu._is_vnni_supported()  # older processors add pairs in 16 bits: one bit less is safe

    def forward(self, values: Tensor) -> Tensor:
        """[..., D] gives [..., E] in float32."""
        result: Tensor = torch.ops.quantized.linear_dynamic(values, self.packed, self.narrow)
        return result


class PackedHead(nn.Module):
    """The language-model head with its output matrix packed: called like `LanguageModelHead`.

    The logits are padded to a multiple of `CHUNK` with -inf.
    """

    def __init__(self, head: LanguageModelHead, output: nn.Module) -> None:
        super().__init__()
        self.dense, self.norm, self.activation, self.bias = head.dense, head.norm, head.activation, head.bias
        self.output = output

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """[..., D] gives logits [..., V]; `words` were packed before."""
        return cast(Tensor, self.output(self.norm(self.activation(self.dense(hidden)))))


def _extended(bias: Tensor | None, outputs: int) -> Tensor | None:
    """The biases of further outputs make them impossible; a layer without biases has no further outputs."""
    return None if bias is None else functional.pad(bias.detach(), (0, outputs - len(bias)), value=-math.inf)


def _can_pack(weight: Tensor) -> bool:
    if not torch._C._has_mkldnn or weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
