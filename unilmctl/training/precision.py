"""When bfloat16 pays, and where it is computed in."""

from contextlib import AbstractContextManager

import torch


def prefers_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (a GPU, or a CPU with AMX or AVX512-BF16)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("amx_tile") or features.get("avx512_bf16"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Where this precision is computed in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
