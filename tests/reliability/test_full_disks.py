"""A disk that is full, read-only or broken ends a command with 74, one line and no litter; what was there stays.

Room is taken away in three ways: a file system of one or two megabytes (where one can be mounted), a limit on the size
of files, and devices that are always full. Each command then does its work when there is room again.
"""

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import Ended, Trial, command_line, forked, furnish

from unilmctl.files import verify_manifest
from unilmctl.runs import RunFolder

TRIAL = Trial("pairs", ())
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "finetune": lambda out: TRIAL.arguments(str(out / "run")),
    "preprocess": lambda out: ["preprocess", "pairs.yaml", "--set", f"data.store={out}/store"],
    "generate": lambda out: ["generate", "many.jsonl", "--model", "straight", "--output", str(out / "written.txt")],
    "convert": lambda out: ["convert", "straight/checkpoints/step-6", str(out / "model")],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a finished run."""
    found = tmp_path_factory.mktemp("disks")
    furnish(found)
    (found / "many.jsonl").write_text((found / "pairs.jsonl").read_text() * 12)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(found)
        TRIAL.run("straight")
    return found


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that is left, and returns the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filler


def left(folder: Path) -> set[str]:
    """Files that are neither whole nor anybody's, by name."""
    return {path.name for path in folder.rglob("*") if ".tmp-" in path.name or path.name.endswith(".unfinished")}


def refused(ended: Ended) -> None:
    assert ended.code == 74, ended.said
    assert "Traceback" not in ended.said, ended.said
    assert "error: " in ended.said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(command: str, small: Path, tmp_path: Path) -> None:
    filler = fill(small)
    work = command_line(*COMMANDS[command](small))
    refused(forked(work, tmp_path / "said"))
    assert left(small) == set()
    filler.unlink()
    again = forked(work, tmp_path / "again")
    assert again.code == 0, again.said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk(command: str, small: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    work = command_line(*COMMANDS[command](small))
    refused(forked(work, tmp_path / "said"))
    assert list(small.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,rw", small], check=True)
    again = forked(work, tmp_path / "again")
    assert again.code == 0, again.said


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_may_not_grow(command: str, tmp_path: Path) -> None:
    work = command_line(*COMMANDS[command](tmp_path / "out"))
    (tmp_path / "out").mkdir()

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))
        work()

    assert forked(limited, tmp_path / "said").code == 74
    assert left(tmp_path / "out") == set()


def test_a_disk_that_fills_while_training_leaves_the_checkpoints_before(small: Path, tmp_path: Path) -> None:
    run = small / "run"
    command = command_line(*TRIAL.arguments(str(run), "finetune.steps=4"))
    assert forked(command, tmp_path / "said").code == 0
    steps = RunFolder(run).steps()
    filler = fill(small)
    more = command_line(*TRIAL.arguments(str(run), "finetune.steps=8"))
    refused(forked(more, tmp_path / "full"))
    assert RunFolder(run).steps()[-1] >= steps[-1]
    assert all(verify_manifest(RunFolder(run).checkpoint(step)) == [] for step in RunFolder(run).steps())
    filler.unlink()
    again = forked(more, tmp_path / "again")
    assert again.code == 0, again.said


def test_an_output_that_was_there_stays(small: Path, tmp_path: Path) -> None:
    (small / "written.txt").write_text("of yesterday\n")
    fill(small)
    refused(forked(command_line(*COMMANDS["generate"](small)), tmp_path / "said"))
    assert (small / "written.txt").read_text() == "of yesterday\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_device_that_is_full(tmp_path: Path) -> None:
    arguments = ["generate", "few.jsonl", "--model", "straight", "--output", "/dev/full"]
    refused(forked(command_line(*arguments), tmp_path / "said"))
    assert Path("/dev/full").is_char_device()
