"""unilmctl inspect run: the curves of a run, from its log.jsonl, each as one line of text, or all of it as a page."""

import json
import math
from contextlib import suppress
from pathlib import Path

from unilmctl import console
from unilmctl import recipe as recipes
from unilmctl.data.store import Store
from unilmctl.errors import DataError, UserError
from unilmctl.files import verify_manifest, write_atomically
from unilmctl.runs import Lengths, RunFolder, curves, lengths_of, report_page

SPLITS = ("train", "valid")


def run(*, folder: Path, as_json: bool = False, html: Path | None = None) -> None:
    """Shows every figure of the run's log as a curve; DataError when nothing has been logged.

    With `html` the run's report is written to that file instead.
    """
    run_folder = RunFolder(folder)
    entries = run_folder.read_log()
    if not entries:
        raise DataError(f"{folder}: no log.jsonl with anything in it", "name a run folder, such as runs/quickstart")
    if html is not None:
        page = report_page(run_folder, _lengths(run_folder))
        with write_atomically(html) as file:
            file.write(page.encode())
        console.say(f"wrote {html}")
        return
    found = curves(entries)
    if as_json:
        console.emit(json.dumps({name: curve._asdict() for name, curve in found.items()}, ensure_ascii=False))
        return
    best = run_folder.pointed("best")
    last = max(int(entry["step"]) for entry in entries)
    console.emit(f"{folder}: {last:,} steps logged; best checkpoint: {best.name if best else 'none yet'}")
    console.table(
        ["figure", "first", "last", "lowest", "highest", "curve"],
        [[name, *_corners(curve.values), console.sparkline(curve.values)] for name, curve in found.items()],
    )
    _show_checkpoints(run_folder)


def _show_checkpoints(run_folder: RunFolder) -> None:
    """Which checkpoints are as they were written, and what is wrong with the others."""
    problems = {step: verify_manifest(run_folder.checkpoint(step)) for step in run_folder.steps()}
    whole = [f"step-{step}" for step, found in problems.items() if not found]
    console.emit(f"checkpoints that are whole: {', '.join(whole) or 'none'}")
    for step, found in problems.items():
        for problem in found:
            console.warn(f"step-{step} is broken: {problem}")


def _lengths(run_folder: RunFolder) -> Lengths:
    """Lengths in the run's stores; nothing where recipe or stores are gone."""
    try:
        store = recipes.load(run_folder.recipe).store
    except UserError:
        store = run_folder.folder / "store"
    found = {}
    for split in SPLITS:
        with suppress(DataError):
            found[split] = Store.open(store / split)
    return lengths_of(found)


def _corners(values: list[float]) -> list[str]:
    finite = [value for value in values if math.isfinite(value)] or values
    return [f"{value:.5g}" for value in (values[0], values[-1], min(finite), max(finite))]
