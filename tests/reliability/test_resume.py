"""A run that was stopped and started again is, bit by bit, the run that was never stopped.

Every case trains twice: once straight on, and once with a SIGTERM at one of the moments at which training asks whether
to stop, then on from the checkpoint in another run of the command. Compared are weights, moments, states, logs (without
the clock), pointers and the checkpoints that are left.
"""

import os
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Questions, Trial, furnish, make_base

from unilmctl.errors import Stopped
from unilmctl.runs import StopSignals

SCHEDULES = ("linear", "cosine", "inverse-sqrt", "constant")
MOMENTS = (0.2, 0.45, 0.7, 0.95)
"""Of all the questions of a run, the share after which it is stopped."""

MIX = (
    "pretrain.mix=[{objective: bidirectional, weight: 1/3, pair: next-sentence, segments: [0, 1]}, "
    "{objective: seq2seq, weight: 1/3, segments: [4, 5]}, {objective: left-to-right, weight: 1/3}]"
)
STAGES = "pretrain.stages=[{steps: 2, mix: [{objective: bidirectional}]}, {steps: 4, mix: [{objective: seq2seq}]}]"
TAGS = "{files: [labels.jsonl], source: words, target: tags}"
FURTHER = f"tasks=[{{name: tags, task: tag, weight: 0.5, data: {{train: {TAGS}, valid: {TAGS}}}}}]"


LABELS = ("data.train.files=[labels.jsonl]", "data.valid.files=[labels.jsonl]")


def task(name: str, **fields: str) -> tuple[str, ...]:
    """Settings that make the recipe `labels` one of another task, over these fields."""
    read = [f"data.{split}.{key}={field}" for split in ("train", "valid") for key, field in fields.items()]
    return (f"finetune.task={name}", f"data.store={name}", *read)


LEARNT: dict[str, tuple[str, tuple[str, ...]]] = {
    "pseudo": ("pairs", ("finetune.objective=pseudo",)),
    "masked": ("pairs", ("finetune.objective=masked", "finetune.source_mask=0.1")),
    "causal": ("pairs", ("finetune.objective=causal", "finetune.target_mask=0.2")),
    "adapters": ("adapted", ("finetune.lora={rank: 2, dropout: 0.1}", "finetune.objective=causal")),
    "classify": ("labels", ()),
    "bidirectional": ("text", ()),
    "mix": ("text", (MIX,)),
    "infilling": ("text", ("pretrain.mix=[{objective: infilling}]",)),
    "permuted": ("text", ("pretrain.mix=[{objective: permuted}]",)),
    "two-stages": ("text", (STAGES, "pretrain.mix=null")),
    "tag": ("labels", task("tag", source="words", target="tags")),
    "span": ("labels", task("span", source="question", second="text", target="answers")),
    "regress": ("labels", task("regress", target="number")),
    "several": ("labels", ("data.store=several", FURTHER)),
    "similar": ("pairs", ("finetune.task=similar", "data.store=similar")),
    "adapted-tag": ("adapted", (*task("tag", source="words", target="tags"), *LABELS, "finetune.lora={rank: 2}")),
}


def cases() -> Iterator[Any]:
    """All objectives x precisions x accumulations x moments; schedule, packing, averages, validation in turn."""
    random = np.random.default_rng(6)
    combined = product(LEARNT, ("float32", "bfloat16"), (1, 3), MOMENTS)
    for number, (name, precision, accumulate, moment) in enumerate(combined):
        kind, settings = LEARNT[name]
        section = "pretrain" if kind == "text" else "finetune"
        schedule, packed, averaged, long = (
            SCHEDULES[number % 4],
            bool(random.integers(2)),
            bool(random.integers(2)),
            bool(random.integers(2)),
        )
        wanted = {
            "precision": precision,
            "accumulate": accumulate,
            "schedule": schedule,
            **({"pack": 64} if packed else {}),
            **({"ema": 0.9} if averaged else {}),
            **({"save_every": 5} if long else {}),
        }
        trial = Trial(kind, (*settings, *(f"{section}.{key}={value}" for key, value in wanted.items())))
        extras = [word for word, on in (("pack", packed), ("ema", averaged), ("save-5", long)) if on]
        label = "-".join([name, precision, f"x{accumulate}", schedule, *extras, f"at-{moment}"])
        marks = [] if number % 14 == 5 else [pytest.mark.reliability]
        yield pytest.param(trial, moment, id=label, marks=marks)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and recipes; stores are built by whoever comes first."""
    folder = tmp_path_factory.mktemp("resume")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        make_base()
    return folder


@pytest.mark.parametrize(("trial", "moment"), cases())
def test_stopped_and_gone_on_is_the_same_as_never_stopped(
    trial: Trial, moment: float, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    straight, stopped = os.path.relpath(tmp_path / "straight"), os.path.relpath(tmp_path / "stopped")
    counting = Questions()
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", counting.asking)
        expected = trial.run(straight)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "__call__", Questions(int(counting.asked * moment), signal.SIGTERM).asking)
        with pytest.raises(Stopped):
            trial.run(stopped)
    torch.manual_seed(len(stopped))  # whatever random state the process is in does not matter
    assert trial.run(stopped) == expected
