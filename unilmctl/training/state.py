"""The optimiser's state as named tensors, so that it can be kept in safetensors."""

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder

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
            optimizer.state[parameter] = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device if moment != "step" else "cpu")
                for moment in MOMENTS
            }
