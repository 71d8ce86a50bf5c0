"""A model whose weights, gradients and moments are shared out among the processes (FSDP2), and the whole of it again.

Every process keeps its part of every tensor, and has a layer whole only while it computes. (Zhao et al. 2023, arXiv
2304.11277.)
"""

import warnings

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unilmctl.errors import RecipeError
from unilmctl.model import Encoder
from unilmctl.training.distributed import Processes


def shard(encoder: Encoder, processes: Processes) -> None:
    """Shares out the encoder: layer by layer, and what is outside of them together.

    The word embeddings and the output matrix, one tensor, are outside of the layers: they stay whole from the forward
    pass to the end of the backward one, as the head works between the two. RecipeError for a model with a generator,
    which reads the embeddings of one that is not at work.
    """
    if encoder.generator is not None:
        raise RecipeError("a model with a generator cannot be shared out", "set sharding to none")
    # The keys and values that a layer returns are views; nobody writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for module in (*encoder.layers, encoder):
        sharded = fully_shard(module, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)  # a step's loss is divided by the labels of all processes already
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def is_sharded(encoder: Encoder) -> bool:
    """Whether `shard` has been at it."""
    return isinstance(encoder, FSDPModule)


def whole(encoder: Encoder, processes: Processes) -> Encoder | None:
    """An ordinary encoder with the same weights for the first process, on the processor if sharded; None for others.

    All processes must ask together.
    """
    if not is_sharded(encoder):
        return encoder if processes.first else None
    state = get_model_state_dict(encoder, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not processes.first:
        return None
    with torch.device("meta"):
        plain = Encoder(encoder.config)
    plain.load_state_dict(state, assign=True)
    return plain


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The tensor where the parameter is: on its device, and shared out as it is if they have one shape."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor) and not isinstance(tensor, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return tensor
