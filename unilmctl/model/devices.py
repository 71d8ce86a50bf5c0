"""Where a model computes: on the processor, or on a GPU."""

import re

import torch

from unilmctl.errors import UsageError

NAMES = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?")
"""How people name a device: `auto` is a GPU where there is one."""


def device_named(name: str = "auto", *, number: int = 0) -> torch.device:
    """The device that a name of `NAMES` means to process `number` of this machine: GPUs without one are dealt out.

    UsageError for a GPU that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    wanted = int(name.removeprefix("cuda:")) if ":" in name else number % max(count, 1)
    if wanted >= count:
        known = f"there are cuda:0 to cuda:{count - 1}" if count else "there is no GPU: `cpu`, or `auto`"
        raise UsageError(f"{name}: no such device here", known)
    return torch.device("cuda", wanted)
