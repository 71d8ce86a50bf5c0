"""The mean of the last checkpoints: often better than any one of them, and free."""

from pathlib import Path

import torch

from unilmctl.model import Encoder
from unilmctl.weights import load_model


def average(folders: list[Path], encoder: Encoder) -> None:
    """Gives `encoder` the mean of the weights in these model folders, summed in float64."""
    sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in encoder.state_dict().items()}
    for folder in folders:
        for name, tensor in load_model(folder).encoder.state_dict().items():
            sums[name] += tensor
    encoder.load_state_dict({name: (total / len(folders)).float() for name, total in sums.items()})
