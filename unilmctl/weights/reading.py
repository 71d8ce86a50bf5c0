"""Reading files that somebody else made: nothing in them is executed, and nothing they claim is believed.

JSON is bounded in size, safetensors headers are checked by their library, pickles go through torch's restricted
unpickler and nowhere else: there is no fall-back. Every refusal is a ModelError with its reason.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.weights.names import Tensors

LARGEST_JSON = 64 * 2**20

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 64 MiB."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"{path}: {path.stat().st_size} bytes are too many for a configuration")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no JSON object")
    return found


def read_safetensors(path: Path) -> Tensors:
    """Every tensor of a `.safetensors` file, on the CPU."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: not a sound safetensors file ({error})") from error


def checked(name: str, tensor: Tensor, shape: torch.Size, where: str) -> Tensor:
    """The tensor as float32 in storage of its own; ModelError unless it is a dense float tensor of this shape."""
    if tensor.shape != shape:
        raise ModelError(
            f"{where}: '{name}' has shape {list(tensor.shape)}, config.json asks for {list(shape)}",
            "the configuration belongs to another checkpoint",
        )
    if tensor.layout != torch.strided or tensor.dtype not in FLOATS:
        raise ModelError(f"{where}: '{name}' is {tensor.dtype} ({tensor.layout}), not a dense table of floats")
    return tensor.detach().to(torch.float32, copy=True).contiguous()
