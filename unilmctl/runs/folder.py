"""The layout of a run folder, and nothing that needs torch.

recipe.yaml              the resolved recipe
log.jsonl                one JSON object per logged interval ("event": "steps") and evaluation ("event": "evaluation")
checkpoints/step-N/      a model folder with the optimiser's state; `average` is a model folder only
report.html              the log as a page (see `report`)
skipped/step-N.json      the examples of a step whose loss or gradient was no number, and its figures
best, latest             files of one line that name a checkpoint
.lock                    held by the process that trains (see `lock`)
../latest                a file of one line that names the last run

A checkpoint whose manifest is missing or wrong does not exist.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.files import (
    beside_of,
    clear_leftovers,
    publish_folder,
    restore_folders,
    verify_manifest,
    write_atomically,
    write_errors,
)

RECIPE = "recipe.yaml"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
SKIPPED = "skipped"
_STEP = re.compile(r"step-(\d+)")
_NAME = re.compile(r"\w[\w-]{0,99}", re.ASCII)
BROKEN_LOG = "remove the line; the log is for people"


class Best(NamedTuple):
    """The best checkpoint so far: its name, and the value of the criterion."""

    name: str
    value: float


class RunFolder:
    """One run folder; every write is atomic. Whoever is among the `listeners` is told what has been logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    @property
    def recipe(self) -> Path:
        """The resolved recipe of this run."""
        return self.folder / RECIPE

    def start(self, recipe: str) -> None:
        """Records the recipe, and that this is the last run."""
        _write(self.recipe, recipe)
        _write(self.folder.parent / "latest", f"{self.folder.name}\n")

    def mend(self) -> None:
        """Clears away what a killed run left: half-written files, and a checkpoint that was about to be replaced."""
        restore_folders(self.folder / CHECKPOINTS)
        names = (RECIPE, LOG, REPORT, "best", "latest")
        for path in (*(self.folder / name for name in names), self.folder.parent / "latest"):
            clear_leftovers(path)

    def clear(self) -> None:
        """Removes everything a run has written, and nothing else (the token stores stay)."""
        with write_errors(self.folder):
            for name in (CHECKPOINTS, TENSORBOARD, SKIPPED):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in (RECIPE, LOG, REPORT, "best", "latest"):
                (self.folder / name).unlink(missing_ok=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Appends one JSON object to the log, and tells the listeners."""
        with write_errors(self.folder / LOG), (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        for listener in self.listeners:
            listener(entry)

    def note_skipped(self, step: int, found: dict[str, Any]) -> None:
        """Writes down what a step met whose loss or gradient was no number."""
        _write(self.folder / SKIPPED / f"step-{step}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")

    def read_skipped(self, step: int) -> dict[str, Any]:
        """What `note_skipped` wrote; UsageError when that step was not skipped, DataError when it cannot be read."""
        path = self.folder / SKIPPED / f"step-{step}.json"
        if not path.is_file():
            known = sorted(int(match[1]) for one in path.parent.glob("*") if (match := _STEP.fullmatch(one.stem)))
            skipped = f"skipped were {', '.join(map(str, known))}" if known else "no step was"
            raise UsageError(f"{self.folder}: step {step} was not skipped", skipped)
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            told = [number for batch in found["batches"] for number in (batch["epoch"], *batch["examples"])]
            sound = bool(told) and all(type(number) is int and number >= 0 for number in told)
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise DataError(f"{path}: does not say which examples were skipped ({str(error)[:100]})") from error
        if not sound:
            raise DataError(f"{path}: does not say which examples were skipped")
        return found

    def read_log(self) -> list[dict[str, Any]]:
        """The log's objects; a last line that a crash cut short is left out. DataError for any other that is none."""
        path = self.folder / LOG
        if not path.exists():
            return []
        whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        return [_entry(line, f"{path}:{number}") for number, line in enumerate(whole.split("\n"), 1) if line]

    def truncate_log(self, *, step: int, evaluated: bool) -> None:
        """Forgets what was logged after `step`, and the evaluation at it unless it is `evaluated`."""
        kept = [entry for entry in self.read_log() if _is_before(entry, step, evaluated=evaluated)]
        _write(self.folder / LOG, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint folder, ascending; nothing is verified."""
        found = (_STEP.fullmatch(path.name) for path in (self.folder / CHECKPOINTS).glob("step-*"))
        return sorted(int(match.group(1)) for match in found if match)

    def checkpoint(self, name: str | int) -> Path:
        """Folder of a checkpoint by its name, or of a step."""
        return self.folder / CHECKPOINTS / (f"step-{name}" if isinstance(name, int) else name)

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is intact, and what is wrong with newer ones, a line each."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            found = verify_manifest(self.checkpoint(step))
            if not found:
                return self.checkpoint(step), problems
            problems.append(found[0])
        return None, problems

    def publish(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Makes the checkpoint `name`: `fill` writes into a folder beside it, which then takes its place."""
        final = self.folder / CHECKPOINTS / name
        beside = beside_of(final)
        with write_errors(final):
            beside.mkdir(parents=True)
        try:
            fill(beside)
            publish_folder(beside, final)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return final

    def point(self, pointer: str, name: str) -> None:
        """Makes `best` or `latest` name a checkpoint."""
        _write(self.folder / pointer, f"{name}\n")

    def pointed(self, pointer: str) -> Path | None:
        """The checkpoint that `best` or `latest` names; None where there is none."""
        path = self.folder / pointer
        if not path.is_file():
            return None
        name = path.read_text(encoding="utf-8", errors="replace").strip()
        return self.checkpoint(name) if _NAME.fullmatch(name) and self.checkpoint(name).is_dir() else None

    def prune(self, kept: Collection[str]) -> None:
        """Removes the steps whose names are not `kept`, and what a crash left half written."""
        for step in self.steps():
            if f"step-{step}" not in kept:
                shutil.rmtree(self.checkpoint(step), ignore_errors=True)
        for path in (self.folder / CHECKPOINTS).glob(".*-*"):
            shutil.rmtree(path, ignore_errors=True)


def model_folder(path: Path) -> Path:
    """The model folder that a path means: itself, or the best (else the latest) checkpoint of a run folder.

    ModelError when it is neither.
    """
    if (path / "config.json").is_file():
        return path
    run = RunFolder(path)
    found = run.pointed("best") or run.pointed("latest")
    if found is None:
        raise ModelError(
            f"{path}: neither a model folder nor a run with a checkpoint", "train one: unilmctl finetune RECIPE"
        )
    return found


def latest_run(root: Path = Path("runs")) -> Path:
    """The run folder that `runs/latest` names; ModelError when there is none."""
    pointer = root / "latest"
    if not pointer.is_file():
        raise ModelError(f"{pointer}: there is no last run", "name a model folder or a run folder with --model")
    return root / pointer.read_text(encoding="utf-8", errors="replace").strip()


def _entry(line: str, where: str) -> dict[str, Any]:
    """One line of a log."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({str(error)[:100]})", BROKEN_LOG) from error
    if not (isinstance(entry, dict) and isinstance(entry.get("event"), str) and type(entry.get("step")) is int):
        raise DataError(f"{where}: has no event and no step", BROKEN_LOG)
    return entry


def _is_before(entry: dict[str, Any], step: int, *, evaluated: bool) -> bool:
    if entry["step"] == step and entry["event"] == "evaluation":
        return evaluated
    return bool(entry["step"] <= step)


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())
