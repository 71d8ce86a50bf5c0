"""Drives the training loop: logs, evaluates, saves, remembers the best, stops when asked.

After every step, in this order: the log line, the evaluation, the checkpoint. Each is due at fixed steps, so that a run
that was stopped and one that was not leave the same files. Where many processes share a run, each of them has a
fitting, all decide the same, and the first one writes.
"""

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unilmctl import console
from unilmctl.fitting.measuring import Measures, better
from unilmctl.fitting.parts import flattened, parts_of, tallies_of
from unilmctl.model import Encoder
from unilmctl.recipe import Pretrain, Training
from unilmctl.runs import Best, RunFolder, StopSignals
from unilmctl.runs.checkpoint import State, save_checkpoint
from unilmctl.tokens import Tokenizer
from unilmctl.training import BEGINNING, Feed, Position, Skipped, Step, TrainOptions, train
from unilmctl.training.averages import Averages, shown
from unilmctl.training.distillation import Teacher
from unilmctl.training.distributed import ALONE, Processes
from unilmctl.training.sharding import whole
from unilmctl.weights import ModelCard

SUMS = ("steps", "loss", "labels", "tokens", "padded_tokens", "seconds")


class Stage(NamedTuple):
    """What is trained on up to step `until`, and what is measured meanwhile."""

    until: int
    feed: Feed[Any]
    validation: Measures | None


@dataclass
class Fitting:
    """One run of training: what stays the same, and (last) where it stands.

    `stages` follow each other to the last step. `criterion` is the figure of the validation that the best checkpoint is
    best by; each stage has a best of its own, as what it measures is its own. `names` are what the log calls the groups
    that labels may belong to.
    """

    folder: RunFolder
    encoder: Encoder
    card: ModelCard
    tokenizer: Tokenizer
    optimizer: torch.optim.Optimizer
    stages: Sequence[Stage]
    options: TrainOptions
    schedule: Training
    criterion: str
    signals: StopSignals
    data: str
    processes: Processes = ALONE
    averages: Averages | None = None
    teacher: Teacher | None = None
    names: Sequence[str] = ()
    position: Position = BEGINNING
    best: Best | None = None
    evaluated: bool = True
    saved: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def resume(self, state: State) -> None:
        """Goes on from a checkpoint whose weights and moments are already in place."""
        self.position, self.best, self.evaluated, self.sums = state.position, state.best, state.evaluated, state.sums
        self.saved = state.position.step

    def stop(self) -> bool:
        """Whether a process was asked to stop. Everyone asks together, and then has received the same."""
        self.signals()
        received = self.processes.largest(self.signals.received or 0)
        if received:
            self.signals.received = signal.Signals(received)
        return received > 0

    def run(self) -> None:
        """Trains to the end. Raises Stopped, with everything saved, when a signal came."""
        if self.processes.first and self.folder.read_log():
            self.folder.truncate_log(step=self.position.step, evaluated=self.evaluated)  # of a run that was killed
        if not self.evaluated:
            self._evaluate_and_save()
        with self._progress() as progress:
            for number, stage in enumerate(self.stages):
                if self.position.step >= stage.until:
                    continue
                if number and self.position.step == self.stages[number - 1].until:
                    # The batches of an epoch are others now: its rest would be any part of them.
                    self.position, self.best = self.position._replace(epoch=self.position.epoch + 1, batch=0), None
                if self._train(stage, progress):
                    break
        if self.stop():
            self._stop()

    def _train(self, stage: Stage, progress: console.TrainingProgress) -> bool:
        """Trains to the end of a stage, or until asked to stop; says whether it was."""
        steps = train(
            self.encoder,
            self.optimizer,
            stage.feed,
            self.options,
            start=self.position,
            stop=lambda: self.position.step >= stage.until or self.stop(),
            processes=self.processes,
            teacher=self.teacher,
            on_skip=self._write_down,
        )
        for step in steps:
            progress.show(step)
            if self.averages is not None and not step.skipped:
                self.averages.update(self.encoder, step.number)
            self._note(step)
            self._evaluate_and_save()
            if self.stop():
                return True
        return self.position.step < stage.until

    def stage(self, step: int) -> Stage:
        """The one that a step belongs to."""
        return next(stage for stage in self.stages if step <= stage.until)

    @property
    def validation(self) -> Measures | None:
        """What is measured at the step that was done last."""
        return self.stage(self.position.step).validation

    def _progress(self) -> console.TrainingProgress:
        return console.TrainingProgress(
            steps=self.options.steps, done=self.position.step, log_every=self.schedule.log_every
        )

    def _note(self, step: Step) -> None:
        """Takes a step into the sums, and logs them when that is due."""
        self.position, self.evaluated = step.after, not self._is_due(step.number, self.schedule.evaluate_every)
        added = (1, step.loss * step.labels, step.labels, step.tokens, step.padded_tokens, step.seconds)
        if not step.skipped:
            for name, value in {**dict(zip(SUMS, added, strict=True)), **flattened(step.tallies)}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        if self._is_due(step.number, self.schedule.log_every) and self.sums["steps"]:
            if self.processes.first:
                self.folder.log(self._entry(step))
            self.sums = dict.fromkeys(SUMS, 0.0)

    def _write_down(self, skipped: Skipped) -> None:
        """Keeps what a step met that was no number, for whoever wants to meet it again."""
        if self.processes.first:
            found = {
                "step": skipped.number,
                "loss": str(skipped.loss),
                "gradient_norm": str(skipped.gradient_norm),
                "heads": {f"{group}:{head}": str(tally.loss) for (group, head), tally in skipped.tallies.items()},
                "batches": [{"epoch": epoch, "examples": examples} for epoch, examples in skipped.batches],
            }
            self.folder.note_skipped(skipped.number, found)
            command = "pretrain" if isinstance(self.schedule, Pretrain) else "finetune"
            again = f"unilmctl {command} {self.folder.recipe} --replay {skipped.number}"
            console.warn(
                f"step {skipped.number:,} is skipped: its loss or gradient is no number\nmeet it again: {again}"
            )

    def _entry(self, step: Step) -> dict[str, Any]:
        sums = self.sums
        return {
            "event": "steps",
            "step": step.number,
            "epoch": step.after.epoch,
            "loss": sums["loss"] / max(sums["labels"], 1),
            "learning_rate": step.learning_rate,
            "gradient_norm": step.gradient_norm,
            "padding": 1 - sums["tokens"] / sums["padded_tokens"],
            "skipped": step.after.skipped,
            "tokens_per_second": round(sums["tokens"] / sums["seconds"]),
            "seconds": round(sums["seconds"], 3),
            **parts_of(tallies_of(sums), self.names),
        }

    def _evaluate_and_save(self) -> None:
        """Evaluates where that is due, and saves where that is due or the evaluation was the best so far."""
        number, improved = self.position.step, False
        if not self.evaluated:
            found = self._evaluate()
            if found is None:
                return
            self.evaluated = True
            improved = better(self.criterion, found, self.best.value if self.best else None)
            if improved:
                self.best = Best(f"step-{number}", found)
        if improved or self._is_due(number, self.schedule.save_every):
            self.save(number)  # again, where a stop has saved it before its evaluation

    def _evaluate(self) -> float | None:
        """The criterion at this step, measured by the first process; None when asked to stop."""
        found = whole(self.encoder, self.processes) if self.validation is not None else None
        encoder = (found or self.encoder).to(self.processes.device)
        return self.processes.from_first(lambda: self.measure("evaluation", shown(encoder, self.averages)))

    def measure(self, event: str, encoder: Encoder) -> float | None:
        """Evaluates, logs, and returns the criterion that the best checkpoint is kept by; None when asked to stop."""
        if self.validation is None:
            return math.nan
        began = time.perf_counter()
        found = self.validation.measure(encoder, self.signals)
        if found is None:
            return None
        seconds = round(time.perf_counter() - began, 3)
        self.folder.log({"event": event, "step": self.position.step, **found, "seconds": seconds})
        console.say(f"step {self.position.step:,}  {event}  {_figures(found)}")
        return float(found[self.criterion])

    def save(self, number: int) -> None:
        """Writes the checkpoint of this step, points to it, and removes those that are no longer wanted."""
        self.saved = number
        if self.processes.first:
            self.folder.publish(f"step-{number}", self._fill)
            self._tidy(number)
        else:
            self._fill(Path())
        self.processes.wait()

    def _fill(self, folder: Path) -> None:
        """Writes the checkpoint into the folder that the first process has made."""
        save_checkpoint(
            self.processes.from_first(lambda: folder),
            self.encoder,
            self.card,
            self.tokenizer,
            optimizer=self.optimizer,
            state=State(self.position, self.sums, self.best, self.evaluated, self.data),
            processes=self.processes,
            averages=self.averages,
        )

    def _tidy(self, number: int) -> None:
        self.folder.point("latest", f"step-{number}")
        if self.best:
            self.folder.point("best", self.best.name)
        newest = self.regular_steps()[-max(self.schedule.keep_last, self.schedule.average_last) :]
        kept = {f"step-{step}" for step in (number, *newest)}
        self.folder.prune(kept | ({self.best.name} if self.best else set()))

    def regular_steps(self) -> list[int]:
        """Steps of checkpoints that are saved in any case, ascending: not those of a stop."""
        return [step for step in self.folder.steps() if self._is_due(step, self.schedule.save_every)]

    def _stop(self) -> None:
        if self.position.step != self.saved:
            self.save(self.position.step)
        where = f"after step {self.position.step}; all is saved in {self.folder.folder}"
        raise self.signals.stopped(f"stopped {where if self.saved else 'before the first step'}")

    def _is_due(self, number: int, every: int) -> bool:
        return number % every == 0 or number in [stage.until for stage in self.stages]


def _figures(found: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
