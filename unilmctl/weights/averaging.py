"""The mean of several checkpoints of one shape: fine-tuned from the same weights, they lie in one valley.

(Wortsman et al. 2022, arXiv 2203.05482.)
"""

from collections.abc import Iterable
from dataclasses import asdict

import torch

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, ModelConfig
from unilmctl.weights.assembling import Assembly

HINT = "only checkpoints of one shape have a mean"


def average(first: Assembly, others: Iterable[tuple[str, Assembly]], where: str) -> None:
    """Gives the first encoder the mean of its weights and those of the others, summed in float64.

    `where` and the others' names stand in errors. ModelError for a parameter that is not of the same shape in all.
    """
    sums = {name: tensor.double() for name, tensor in first.encoder.state_dict().items()}
    count = 1
    for name, other in others:
        _refuse_other_shapes(first, other, name, where)
        for parameter, tensor in other.encoder.state_dict().items():
            sums[parameter] += tensor
        count += 1
    with torch.no_grad():
        for parameter, tensor in first.encoder.state_dict().items():
            tensor.copy_(sums[parameter] / count)


def _refuse_other_shapes(first: Assembly, other: Assembly, name: str, where: str) -> None:
    ours, theirs = (one.encoder.state_dict() for one in (first, other))
    for parameter in [*ours, *theirs]:
        if parameter not in ours or parameter not in theirs:
            lacks, has = (where, name) if parameter in theirs else (name, where)
            raise ModelError(f"{lacks}: has no '{parameter}', as {has} has", HINT)
        shapes = [list(one[parameter].shape) for one in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ModelError(f"{name}: '{parameter}' is {shapes[0]}, in {where} it is {shapes[1]}", HINT)
    lacking = {part.name for part in first.missing} ^ {part.name for part in other.missing}
    if lacking:
        raise ModelError(
            f"'{min(lacking)}' is in one of {where} and {name} only", "convert them one by one to see more"
        )
    _refuse_other_kinds(first.encoder, other.encoder, name, where)


def _refuse_other_kinds(first: Encoder, other: Encoder, name: str, where: str) -> None:
    """Weights of the same shapes can still mean something else."""
    ours, theirs = (_essentials(encoder.config) for encoder in (first, other))
    for key, value in theirs.items():
        if value != ours[key]:
            raise ModelError(f"{name}: {key} is {value!r}, in {where} it is {ours[key]!r}", HINT)


def _essentials(config: ModelConfig) -> dict[str, object]:
    """What it takes to know what the weights compute."""
    passing = ("dropout", "attention_dropout", "initializer_range")
    return {key: value for key, value in asdict(config).items() if key not in passing}
