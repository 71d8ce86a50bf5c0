"""The optimiser's state as named tensors, so that it can be kept in safetensors."""

from collections.abc import Iterable

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.training.sharding import like

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_tensors(encoder: Encoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every moment of every parameter that has been updated, as `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME`."""
    state = optimizer.state
    return {
        f"{moment}.{name}": state[parameter][moment].detach().contiguous()
        for name, parameter in encoder.named_parameters()
        if parameter in state
        for moment in MOMENTS
    }


def load_optimizer(encoder: Encoder, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts the tensors of `optimizer_tensors` back. ModelError when they are not those of this model."""
    names = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    found = {key.split(".", 1)[1] for key in tensors}
    if found - names:
        different = ", ".join(sorted(found - names)[:3])
        raise ModelError(f"the optimiser's state does not fit the model: {different}", "start over with --fresh")
    for name, parameter in encoder.named_parameters():
        if name in found:
            optimizer.state[parameter] = {moment: like(tensors[f"{moment}.{name}"], parameter) for moment in MOMENTS}


def empty_tensors(encoder: Encoder, keys: Iterable[str]) -> dict[str, Tensor]:
    """Room for the tensors of `optimizer_tensors` that have these keys, where the parameters are.

    ModelError when they are not those of this model.
    """
    parameters = dict(encoder.named_parameters())
    room = {}
    for key in keys:
        moment, name = key.split(".", 1)
        if name not in parameters:
            raise ModelError(f"the optimiser's state does not fit the model: {name}", "start over with --fresh")
        room[key] = (
            torch.zeros((), device=parameters[name].device) if moment == "step" else torch.zeros_like(parameters[name])
        )
    return room
