"""Number formats for decoding, and which of them this machine is good at.

`float32` is exact: tokens do not depend on what else is decoded at the same time. `bfloat16` halves what is read.
`int8` stores a weight in a byte, with one scale for each output of a layer, and rounds activations to a byte for each
product (as Q8BERT, Zafrir et al. 2019, arXiv 1910.06188, without training for it); keys and values stay in bfloat16.
"""

import torch

from unilmctl.errors import UsageError

FORMATS = ("auto", "float32", "bfloat16", "int8")

SMALL = 256
"""Models of a smaller hidden width gain little from a smaller format, and lose more to its rounding."""


def settle(dtype: str, hidden: int, device: str = "cpu") -> str:
    """The format that `auto` stands for on this machine, for a model of this width; other names stay as they are.

    UsageError for int8 where there are no kernels for it.
    """
    if dtype == "int8" and (device != "cpu" or int8_engine() is None):
        where = "this machine" if device == "cpu" else device
        raise UsageError(f"{where} has no kernels for int8", "--dtype bfloat16 or --dtype float32")
    if dtype != "auto":
        return dtype
    if device != "cpu":
        return "bfloat16"
    if hidden < SMALL:
        return "float32"
    if torch.cpu._is_amx_tile_supported():
        return "bfloat16"
    if torch.cpu._is_vnni_supported() and int8_engine() is not None:
        return "int8"
    return "bfloat16" if _reads_bfloat16() else "float32"


def cache_format(dtype: str) -> torch.dtype:
    """The format of keys and values beside weights in `dtype` (not `auto`)."""
    if dtype == "float32" or (dtype == "int8" and not _reads_bfloat16()):
        return torch.float32
    return torch.bfloat16


def int8_engine(*, wide: bool = False) -> str | None:
    """The library that multiplies in int8; None where there is none.

    FBGEMM is faster for the few rows of a step; oneDNN where a processor has tiles, and for `wide` layers.
    """
    engines = torch.backends.quantized.supported_engines
    preferred = ("onednn", "fbgemm") if wide or torch.cpu._is_amx_tile_supported() else ("fbgemm", "onednn")
    return next((engine for engine in preferred if engine in engines), None)


def _reads_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
