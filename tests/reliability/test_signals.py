"""A signal at any moment: training saves and says so, everything else ends with nothing half done, in two seconds.

Each case is a process that sends itself the signal at a known point. Exit codes are 75 and 130 where there was
something to save, else 128 and the signal's number; a second interrupt does not wait for the first. Afterwards the same
command gives the same files as if nothing had happened.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import Trial, command_line, forked, furnish
from stopping import contents

from unilmctl import recipe
from unilmctl.commands.finetune.validation import Validation
from unilmctl.data import store
from unilmctl.generation import generator
from unilmctl.runs import folder
from unilmctl.training import loop

TRIAL = Trial("pairs", ("finetune.steps=4", "finetune.evaluate_every=2"))
LIMIT = 2.0
"""Seconds that a command may work on after the signal. It may take longer where others work too, but not `PATIENCE`."""
PATIENCE = 20.0
SIGNALS = {
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
    "SIGINT": (signal.SIGINT,),
    "SIGINT-twice": (signal.SIGINT, signal.SIGINT),
}
POINTS: dict[str, tuple[Any, str, int]] = {
    "start": (recipe, "load", 1),
    "preparing": (store, "publish_folder", 1),
    "step": (loop, "score", 3),
    "validation": (Validation, "measure", 1),
    "saving": (folder, "publish_folder", 1),
    "preprocessing": (store, "publish_folder", 1),
    "generation": (generator, "run", 1),
}
"""Name of a moment -> whose function is called then, and the number of the call."""
SAVED = ("step", "validation", "saving")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, recipes and a finished run."""
    found = tmp_path_factory.mktemp("signals")
    furnish(found)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(found)
        TRIAL.run("straight")
    return found


def sending(point: str, signals: tuple[signal.Signals, ...], clock: Path) -> Callable[[], None]:
    """Changes this process so that it sends itself the signals at a point; the time is kept in a file."""
    owner, name, number = POINTS[point]
    original, calls = getattr(owner, name), iter(range(1, 1000000))

    def replaced(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            clock.write_text(f"{time.time()} {time.process_time()}")
            for one in signals:
                os.kill(os.getpid(), one)
        return original(*arguments, **options)

    return lambda: setattr(owner, name, replaced)


def expected(point: str, signals: tuple[signal.Signals, ...]) -> int:
    """The exit code; negative: the number of the signal that killed."""
    if point not in SAVED:
        return 128 + signals[0]
    return -signal.SIGINT if len(signals) > 1 else {signal.SIGINT: 130}.get(signals[0], 75)


def arguments(point: str, run: str) -> list[str]:
    if point == "generation":
        return ["generate", "few.jsonl", "--model", "straight", "--output", f"{run}.txt", "--workers", "1"]
    if point == "preprocessing":
        return ["preprocess", "pairs.yaml", "--set", f"run={run}", "--set", f"data.store={run}-store"]
    fresh = (f"data.store={run}-store",) if point == "preparing" else ()
    return TRIAL.arguments(run, *fresh)


def worked_by_children() -> float:
    """Seconds that processors have spent on children of this process that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def deliveries() -> list[Any]:
    short = {(point, "SIGTERM") for point in POINTS} | {("step", sent) for sent in SIGNALS}
    return [
        pytest.param(point, sent, marks=[] if (point, sent) in short else [pytest.mark.reliability])
        for point in POINTS
        for sent in SIGNALS
    ]


@pytest.mark.parametrize(("point", "sent"), deliveries())
def test_a_signal_ends_the_command_in_order(
    point: str, sent: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    run, signals, clock = f"{point}-{sent}", SIGNALS[sent], tmp_path / "clock"
    command, change = command_line(*arguments(point, run)), sending(point, signals, clock)

    def work() -> None:
        change()
        command()

    before, worked = set(place.iterdir()), worked_by_children()
    ended = forked(work, tmp_path / "said")
    at, working = map(float, clock.read_text().split())
    assert worked_by_children() - worked - working < LIMIT
    assert time.time() - at < PATIENCE
    assert ended.code == expected(point, signals), ended.said
    assert "Traceback" not in ended.said
    left = {path.name for path in set(place.iterdir()) - before}
    assert not [name for name in left if ".tmp-" in name or (name == f"{run}.txt")]
    again = forked(command_line(*arguments(point, run)), tmp_path / "again")
    assert again.code == 0, again.said
    if point not in ("generation", "preprocessing"):
        assert contents(place / run) == contents(place / "straight")
