"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685): small matrices that learn what a frozen one should add.

A fused projection has one adapter for each of its parts, so that it can be taken apart again as a file names them.

Shapes: I inputs and O outputs of a linear layer, P parts of its outputs, r rank.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.model.encoder import Encoder

TARGETS = {"qkv": "attention.qkv", "output": "attention.output", "inner": "inner", "outer": "outer"}
"""What a recipe calls the linear layers of a layer, and where they are."""

PARTS = {"qkv": 3}
"""Fused projections: query, key and value."""


@dataclass(frozen=True)
class Adapting:
    """How a model is adapted: what the adapters add is multiplied with alpha / rank; `dropout` is on their inputs.

    `base` names the model that is adapted to whoever loads the adapters.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    base: str | None = None


class Adapted(nn.Linear):
    """A frozen linear layer and what its adapters add: W x + alpha / r * up (down x)."""

    def __init__(self, linear: nn.Linear, how: Adapting, parts: int, generator: torch.Generator) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.how, self.scale = how, how.alpha / how.rank
        down = torch.empty(parts * how.rank, linear.in_features)  # [P * r, I]
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(down.to(linear.weight.device))
        self.up = nn.Parameter(linear.weight.new_zeros(parts, linear.out_features // parts, how.rank))  # [P, O / P, r]

    def forward(self, values: Tensor) -> Tensor:
        """[..., I] gives [..., O]."""
        low = functional.linear(functional.dropout(values, self.how.dropout, self.training), self.down)
        low = low.view(*low.shape[:-1], len(self.up), -1)  # [..., P, r]
        added = torch.einsum("...pr,por->...po", low, self.up).flatten(-2)
        return functional.linear(values, self.weight, self.bias) + self.scale * added


def adapt(encoder: Encoder, how: Adapting, *, seed: int, heads: Iterable[str] = ()) -> None:
    """Freezes the encoder, but for these heads, and puts adapters on its linear layers.

    What it computes does not change yet.
    """
    encoder.requires_grad_(requires_grad=False)
    for head in heads:
        for parameter in encoder.parameters_of(head):
            parameter.requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    for number in range(encoder.config.distinct_layers):
        for target in how.targets:
            name = f"layers.{number}.{TARGETS[target]}"
            linear = encoder.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            encoder.set_submodule(name, Adapted(linear, how, PARTS.get(target, 1), generator))


def adapters(encoder: Encoder) -> dict[str, Adapted]:
    """The adapted linear layers by their names."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, Adapted)}


def adapting_of(encoder: Encoder) -> Adapting | None:
    """How the encoder was adapted; None when it was not."""
    return next((module.how for module in adapters(encoder).values()), None)


def merged(encoder: Encoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an encoder without adapters that computes what an adapted one of this `state` does."""
    plain = dict(state)
    for name, module in adapters(encoder).items():
        down, up = plain.pop(f"{name}.down"), plain.pop(f"{name}.up")
        added = up @ down.view(len(up), -1, down.shape[1])  # [P, O / P, I]
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + module.scale * added.flatten(0, 1)
    return plain


def split(name: str, state: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices [r, I] and [O / P, r] of each of the `parts` of the adapted layer `name`.

    A lone part is the whole layer: its matrices are [P * r, I] and [O, P * r].
    """
    down, up = state[f"{name}.down"], state[f"{name}.up"]
    if len(parts) == 1:
        return {parts[0]: (down, torch.block_diag(*up))}  # type: ignore[no-untyped-call]
    return dict(zip(parts, zip(down.chunk(len(up)), up, strict=True), strict=True))
