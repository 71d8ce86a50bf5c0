"""The mean of the last checkpoints: often better than any one of them, and free."""

import math
from pathlib import Path

import torch

from unilmctl.fitting.fitting import Fitting
from unilmctl.fitting.measuring import better
from unilmctl.model import Encoder
from unilmctl.runs import Best
from unilmctl.weights import save_model
from unilmctl.weights.folder import load_whole


def finish(fitting: Fitting) -> Best | None:
    """Averages the last checkpoints where the recipe asks for it, and returns the best: the average if it is better."""
    step, folder, schedule = fitting.position.step, fitting.folder, fitting.schedule
    steps = fitting.regular_steps()[-schedule.average_last :]
    if schedule.average_last < 2 or len(steps) < 2:
        return fitting.best
    logged = [entry for entry in folder.read_log() if entry["event"] == "average" and entry["step"] == step]
    value = float(logged[-1].get(fitting.criterion, math.nan)) if logged else _averaged(fitting, steps)
    if better(fitting.criterion, value, fitting.best.value if fitting.best else None):
        folder.point("best", "average")
        return Best("average", value)
    return fitting.best


def _averaged(fitting: Fitting, steps: list[int]) -> float:
    """Writes checkpoints/average and returns its criterion. Raises Stopped when a signal came meanwhile."""
    folder = fitting.folder
    encoder = load_whole(folder.checkpoint(steps[-1])).encoder.to(fitting.processes.device)
    average([folder.checkpoint(step) for step in steps], encoder)
    folder.publish("average", lambda path: save_model(path, encoder, fitting.card, fitting.tokenizer))
    value = fitting.measure("average", encoder)
    if value is None:
        raise fitting.signals.stopped(f"stopped after the last step; all is saved in {folder.folder}")
    return value


def average(folders: list[Path], encoder: Encoder) -> None:
    """Gives `encoder` the mean of the weights in these model folders, summed in float64."""
    sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in encoder.state_dict().items()}
    for folder in folders:
        for name, tensor in load_whole(folder).encoder.state_dict().items():
            sums[name] += tensor
    encoder.load_state_dict({name: (total / len(folders)).float() for name, total in sums.items()})
