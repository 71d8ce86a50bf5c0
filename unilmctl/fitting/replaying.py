"""A step that was skipped, once more: which of its examples give a loss or a gradient that is no number.

Each example is a step of its own at a learning rate of nothing, so it goes the way that it went in training. The
weights are those of the last checkpoint before the step, or those that training began with. Nothing is learnt, and
nothing in the run folder changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unilmctl import console
from unilmctl.errors import UsageError
from unilmctl.fitting.conducting import Job
from unilmctl.fitting.fitting import Fitting
from unilmctl.rows import Ints
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.training import Position, Step, train
from unilmctl.training.distributed import Processes

SHOWN = 10
"""Tokens of a row that are shown."""


class Some(NamedTuple):
    """Examples of an epoch by their numbers, as a step has them in one batch."""

    epoch: int
    examples: list[int]


class Earlier(RunFolder):
    """A run folder as it was before a step, or what is left of that."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder)
        self.step = step

    def steps(self) -> list[int]:
        """Steps that have a checkpoint folder, ascending."""
        return [step for step in super().steps() if step < self.step]


def replay(job: Job[Any], processes: Processes, step: int) -> None:
    """Prints loss and gradient norm of a skipped step, of all of it together and of each of its examples alone.

    UsageError when it was not skipped, and among several processes.
    """
    if processes.size > 1:
        raise UsageError("--replay is the work of one process", "start it without torchrun")
    folder = Earlier(job.plan.run, step)
    batches = [Some(**batch) for batch in folder.read_skipped(step)["batches"]]
    fitting = job.assemble(folder, job.prepare(), StopSignals(), processes.on(job.section.device))
    (together,) = _steps(fitting, step, batches, accumulate=len(batches))
    alone = [Some(epoch, [example]) for epoch, examples in batches for example in examples]
    found = list(zip(alone, _steps(fitting, step, alone), strict=True))
    console.emit(f"step {step:,} with the weights of step {fitting.position.step:,}")
    rows = [[str(one.examples[0]), str(one.epoch), *_figures(met), _text(fitting, step, one)] for one, met in found]
    console.table(
        ["example", "epoch", "tokens", "loss", "gradient norm", "row"], [["all", "", *_figures(together), ""], *rows]
    )
    bad = sum(met.skipped for _, met in found)
    console.emit(f"{bad:,} of {len(found):,} examples give no number" if bad else "each example alone gives a number")


def _steps(fitting: Fitting, step: int, batches: Sequence[Some], *, accumulate: int = 1) -> Iterator[Step]:
    """Steps from `step` on with these batches, so many in each, that leave the weights as they are."""

    def order(epoch: int) -> list[Ints]:
        return [np.array(one.examples) for one in batches if one.epoch == epoch]

    last = step - 1 + len(batches) // accumulate
    return train(
        fitting.encoder,
        torch.optim.SGD(fitting.encoder.parameters(), lr=0.0),
        replace(fitting.stage(step).feed, order=order),
        replace(fitting.options, steps=last, learning_rate=0.0, accumulate=accumulate, skip_budget=last),
        start=Position(step - 1, batches[0].epoch),
        teacher=fitting.teacher,
    )


def _figures(met: Step) -> list[str]:
    return [str(met.tokens), f"{met.loss:.5g}", f"{met.gradient_norm:.5g}"]


def _text(fitting: Fitting, step: int, one: Some) -> str:
    """How the row of an example begins."""
    ids = fitting.stage(step).feed.batch(one.epoch, np.array(one.examples)).ids[0, :SHOWN]
    return " ".join(fitting.tokenizer.tokens(ids.tolist()))
