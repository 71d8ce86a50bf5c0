"""unilmctl preprocess: the recipe's text into token stores, and what was found on the way."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from unilmctl import console
from unilmctl import recipe as recipes
from unilmctl.preparation import (
    Prepared,
    PreparedTasks,
    PreparedText,
    SplitReport,
    TaskData,
    TextReport,
    prepare,
    prepare_tasks,
    prepare_text,
)
from unilmctl.recipe import Recipe

Stores = Prepared | PreparedTasks | PreparedText

BARS = 10
WIDEST = 40


def run(*, recipe: str | Path, settings: Sequence[str] = (), workers: int | None = None) -> Stores:
    """Build every store that is missing or stale, and show counts, cuts and lengths.

    workers: processes that encode; None for one per core. Raises what `preparation.prepare` raises.
    """
    plan = recipes.load(recipe, settings)
    for path in recipes.write_generated(plan):
        console.say(f"wrote {path}")
    recipes.require_files(plan)
    with _Watch() as watch:
        prepared = _prepared(plan, workers, watch.tell)
    _show_vocabulary(prepared)
    if isinstance(prepared, PreparedText):
        _show_text(plan.store, prepared)
    else:
        _show(plan.store, prepared)
    return prepared


def _prepared(plan: Recipe, workers: int | None, tell: Callable[[str, int, int | None], None]) -> Stores:
    folder, splits, bad = plan.store, recipes.splits_of(plan), plan.data.on_bad_line
    tokenizer = plan.tokens.train or plan.tokenizer
    assert tokenizer is not None, "the schema asks for one of the two"
    if plan.pretrain is not None:
        return prepare_text(
            folder=folder, splits=splits, tokenizer=tokenizer, on_bad_line=bad, processes=workers, progress=tell
        )
    if plan.finetune.task != "generate" or plan.tasks is not None:
        tasks = {one.name: TaskData(one.task, one.store, one.splits) for one in plan.lessons}
        return prepare_tasks(
            folder=folder,
            tasks=tasks,
            limits=plan.tokens,
            tokenizer=tokenizer,
            on_bad_line=bad,
            processes=workers,
            progress=tell,
        )
    return prepare(
        folder=folder,
        splits=splits,
        limits=plan.tokens,
        tokenizer=tokenizer,
        on_bad_line=bad,
        processes=workers,
        progress=tell,
    )


class _Watch(ExitStack):
    """Shows progress: a line for every stage, until the next one begins."""

    def __enter__(self) -> "_Watch":
        self._stage, self._done = "", 0
        return self

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """`done` lines of `stage` are done."""
        if stage != self._stage:
            self.close()
            self._advance = self.enter_context(console.progress(stage, total=total))
            self._stage, self._done = stage, 0
        self._advance(done - self._done)
        self._done = done


def _show_vocabulary(prepared: Stores) -> None:
    tokenizer = prepared.tokenizer
    learnt = "trained" if prepared.trained else "as it was"
    console.say(f"vocabulary: {tokenizer.kind}, {tokenizer.size:,} entries, {learnt}")


def _show(store: Path, prepared: Prepared | PreparedTasks) -> None:
    headers = ["split", "field", "examples", "tokens", "mean", "longest", "cut", "empty", "unknown", "bad lines"]
    rows = [row for name, report in prepared.report.items() for row in _rows(name, report)]
    console.table(headers, rows, title=f"Token stores in {store}")
    for name, report in prepared.report.items():
        _show_split(name, report)
        for field, lengths in report.lengths.items():
            _show_lengths(f"{name}: length of {field} before the cut, in tokens", lengths)


def _show_text(store: Path, prepared: PreparedText) -> None:
    headers = ["split", "documents", "sentences", "tokens", "mean", "longest", "empty", "unknown", "bad lines"]
    rows = [[name, *_text_row(report)] for name, report in prepared.report.items()]
    console.table(headers, rows, title=f"Token stores in {store}")
    for name, report in prepared.report.items():
        _show_split(name, report)
        _show_lengths(f"{name}: length of sentences, in tokens", report.lengths)


def _show_split(name: str, report: SplitReport | TextReport) -> None:
    console.say(f"{name}: {f'built ({report.built})' if report.built else 'up to date'}")
    for line in report.bad_lines:
        console.warn(line)


def _show_lengths(title: str, lengths: dict[int, int]) -> None:
    console.emit(f"\n{title}")
    for line in histogram(lengths):
        console.emit(line)


def _text_row(report: TextReport) -> list[str | int | float]:
    """A split's row of the table, without its name."""
    return [
        report.documents,
        report.sentences,
        report.tokens,
        report.tokens / max(1, report.sentences),
        max(report.lengths, default=0),
        report.empty,
        report.unknown,
        report.bad,
    ]


def _rows(name: str, report: SplitReport) -> list[list[str | int | float]]:
    """One row of the table per field."""
    return [
        [
            name,
            field,
            report.examples,
            report.tokens[field],
            report.tokens[field] / max(1, report.examples),
            max(lengths, default=0),
            report.cut[field],
            report.empty[field],
            report.unknown[field],
            report.bad,
        ]
        for field, lengths in report.lengths.items()
    ]


def histogram(lengths: dict[int, int]) -> list[str]:
    """Bars of `lengths` (length -> examples): at most ten equal stretches, each a line of text."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, math.ceil((high - low + 1) / BARS))
    counts = [0] * ((high - low) // width + 1)
    for length, count in lengths.items():
        counts[(length - low) // width] += count
    names = [
        f"{low + i * width}-{low + (i + 1) * width - 1}" if width > 1 else f"{low + i}" for i in range(len(counts))
    ]
    room = max(map(len, names))
    most = max(counts)
    return [
        f"{name:>{room}}  {'█' * round(WIDEST * count / most):<{WIDEST}}  {count:,}"
        for name, count in zip(names, counts, strict=True)
    ]
