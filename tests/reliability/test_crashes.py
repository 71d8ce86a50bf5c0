"""A kill, or an error of the disk, at any moment of training costs at most the steps since the last checkpoint.

A copy of the process trains, and dies: killed before the n-th thing that it does to the disk (opening a file to write,
syncing, renaming, making and removing files and folders), for every n; killed in the middle of writing tensors; killed
at any time; or met by an error at each of these places. Then the same command goes on, with the newest checkpoint that
is whole, and leaves what a run leaves to which nothing happened. Every byte of a checkpoint that changes is found.
"""

import errno
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from small_runs import Ended, Trial, command_line, forked, furnish
from stopping import contents

from unilmctl.files import verify_manifest
from unilmctl.runs import RunFolder, checkpoint
from unilmctl.weights import folder as model_folders

TRIAL = Trial("pairs", ("finetune.steps=9", "finetune.evaluate_every=3", "finetune.ema=0.9"))
TOUCHES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
PLACES = 200
"""Of the places at which a run touches the disk, which are more (checked below), those that are tried."""

ERRNOS = {"full": errno.ENOSPC, "broken": errno.EIO, "read-only": errno.EROFS}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, stores and a finished run."""
    found = tmp_path_factory.mktemp("crashes")
    furnish(found)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(found)
        TRIAL.run("straight")
    return found


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def watching(run: Path, touched: Callable[[], None]) -> None:
    """Calls `touched` before everything that this process does to the disk in a run folder, from now to its end."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wax+")
            if writes and str(run) in str(path):
                touched()
        elif event in TOUCHES and any(str(run) in str(argument) for argument in arguments):
            touched()

    sync = os.fsync

    def synced(descriptor: int) -> None:
        if str(run) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            touched()
        sync(descriptor)

    os.fsync = synced
    sys.addaudithook(hook)


def torn(number: int) -> None:
    """Makes this process write half of the n-th file of tensors, and die."""
    calls = itertools.count(1)
    save = safetensors.torch.save_file

    def half(tensors: dict[str, Any], path: str | Path, *rest: Any, **named: Any) -> None:
        save(tensors, path, *rest, **named)
        if next(calls) == number:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    for module in (checkpoint, model_folders):
        module.save_file = half  # type: ignore[attr-defined]


def trained(run: str, change: Callable[[], None], said: Path, **options: Any) -> Ended:
    command = command_line(*TRIAL.arguments(run))

    def work() -> None:
        change()
        command()

    return forked(work, said, **options)


def goes_on(run: str, said: Path) -> None:
    """Goes on with the run, whose newest whole checkpoint must do, and compares what it leaves."""
    newest, _ = RunFolder(Path(run)).newest()
    assert newest is None or verify_manifest(newest) == []
    ended = trained(run, lambda: None, said)
    assert ended.code == 0, ended.said
    assert contents(Path(run)) == contents(Path("straight"))
    litter = [str(path) for path in Path(run).rglob("*") if ".tmp-" in path.name or ".old-" in path.name]
    assert litter == []


def some(numbers: range, short: int) -> list[Any]:
    """Cases, of which every `short`-th is tried always."""
    return [
        pytest.param(number, marks=[] if number % short == short // 2 else [pytest.mark.reliability])
        for number in numbers
    ]


def test_a_run_touches_the_disk_at_more_places_than_are_tried(tmp_path: Path) -> None:
    counted, counter = tmp_path / "count", itertools.count(1)

    def touched() -> None:
        counted.write_text(str(next(counter)))

    assert trained("counted", lambda: watching(Path("counted"), touched), tmp_path / "said").code == 0
    assert int(counted.read_text()) >= PLACES


@pytest.mark.parametrize("number", some(range(1, PLACES + 1), 40))
def test_killed_before_it_touches_the_disk(number: int, tmp_path: Path) -> None:
    run, counter = f"killed-{number}", itertools.count(1)

    def touched() -> None:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    assert trained(run, lambda: watching(Path(run), touched), tmp_path / "said").code == -signal.SIGKILL
    goes_on(run, tmp_path / "again")


@pytest.mark.parametrize("number", some(range(2, PLACES + 1, 2), 40))
def test_met_by_an_error_of_the_disk(number: int, tmp_path: Path) -> None:
    run, counter = f"refused-{number}", itertools.count(1)
    kind = list(ERRNOS.values())[number // 2 % 3]

    def touched() -> None:
        if next(counter) == number:
            raise OSError(kind, os.strerror(kind))

    ended = trained(run, lambda: watching(Path(run), touched), tmp_path / "said")
    assert "Traceback" not in ended.said, ended.said
    assert ended.code in (0, 74), ended.said  # 0: what could not be removed is removed the next time
    if ended.code == 74:
        assert f": {os.strerror(kind)}" in ended.said
    goes_on(run, tmp_path / "again")


@pytest.mark.parametrize("number", some(range(1, 9), 4))
def test_killed_in_the_middle_of_a_file_of_tensors(number: int, tmp_path: Path) -> None:
    run = f"torn-{number}"
    assert trained(run, lambda: torn(number), tmp_path / "said").code == -signal.SIGKILL
    goes_on(run, tmp_path / "again")


@pytest.mark.parametrize("number", some(range(60), 60))
def test_killed_at_any_time(number: int, tmp_path: Path) -> None:
    run = f"any-{number}"
    delay = float(np.random.default_rng(number).uniform(0.0, 1.2))
    assert trained(run, lambda: None, tmp_path / "said", killed_after=delay).code in (0, -signal.SIGKILL)
    goes_on(run, tmp_path / "again")


def test_every_byte_of_a_checkpoint_that_changes_is_found(tmp_path: Path) -> None:
    """All bytes of small files, and some hundreds of large ones."""
    folder = tmp_path / "step-6"
    shutil.copytree(Path("straight/checkpoints/step-9"), folder)
    assert verify_manifest(folder) == []
    random, missed, tried = np.random.default_rng(1), [], 0
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        places = range(len(content)) if len(content) < 400 else random.choice(len(content), 300, replace=False)
        for at in map(int, places):
            by = int(random.integers(1, 256))
            path.write_bytes(content[:at] + bytes([content[at] ^ by]) + content[at + 1 :])
            missed += [] if verify_manifest(folder) else [(path.name, at, by)]
            tried += 1
        path.write_bytes(content)
    assert tried > 1000
    assert missed == []
