"""Tasks that end in a label, and several tasks at once: their files to stores of texts and labels, or of pairs."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.encoding import Tally, encode_chunks
from unilmctl.data.labelled import (
    CLASSIFY,
    SPAN,
    TAG,
    WRITES,
    LabelColumns,
    LabelledText,
    Raw,
    label_set,
    labelled_lines,
    parsed_lines,
    plain_of,
)
from unilmctl.data.labels import LABELLED_FIELDS, LabelCoder, check, chunks_of
from unilmctl.data.parts import Parting
from unilmctl.data.settings import LabelledSplit, TaskLimits, TaskSplit, Vocabulary
from unilmctl.data.store import Store, StoreWriter
from unilmctl.data.streams import label_of
from unilmctl.errors import DataError
from unilmctl.preparation.building import Progress, Work, encoded_from, inputs_of, silent, vocabulary
from unilmctl.preparation.pairs import SplitReport, pair_store, pair_texts, pairs_meta, report_of
from unilmctl.tokens import Tokenizer

ENCODING = 2
"""Raised when the same text and settings would give other stores."""


class TaskData(NamedTuple):
    """One task: which, the folder of its stores, and its splits, of which "train" has all the labels there are."""

    task: str
    folder: Path
    splits: Mapping[str, TaskSplit]


class PreparedTask(NamedTuple):
    """A store per split, and the labels or tags that there are; of answers, "" if some questions have none."""

    stores: dict[str, Store]
    labels: tuple[str, ...]


class PreparedTasks(NamedTuple):
    """A tokenizer, what belongs to each task, and why the vocabulary was trained now (None: it was not).

    `stores` and `report` are of all tasks: those of the first by the name of the split, of others NAME SPLIT.
    """

    tokenizer: Tokenizer
    tasks: dict[str, PreparedTask]
    stores: dict[str, Store]
    report: dict[str, SplitReport]
    trained: str | None


def prepare_tasks(
    *,
    folder: Path,
    tasks: Mapping[str, TaskData],
    limits: TaskLimits,
    tokenizer: Path | Vocabulary,
    on_bad_line: str = "fail",
    processes: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> PreparedTasks:
    """The tokenizer and the stores of every task's splits, built where missing, stale or `rebuild` is set.

    A vocabulary of one's own is learnt from all tasks. Otherwise as `preparation.prepare`; lines whose label cannot be
    read are passed over unless `on_bad_line` is fail.
    """
    work = Work(on_bad_line, processes, rebuild, progress or silent)
    hashes: dict[Path, str] = {}
    sources = {
        name: {split: _source(data.task, found, hashes, on_bad_line) for split, found in data.splits.items()}
        for name, data in tasks.items()
    }
    if isinstance(tokenizer, Path):
        made, trained = Tokenizer.load(tokenizer), None
    else:
        learnt = _joined(found["train"] for found in sources.values())
        texts = chain.from_iterable(_texts(data, on_bad_line) for data in tasks.values())
        made, trained = vocabulary(folder / "tokenizer", texts, learnt, tokenizer, work)
    found: dict[str, PreparedTask] = {}
    stores: dict[str, Store] = {}
    report: dict[str, SplitReport] = {}
    for number, (name, data) in enumerate(tasks.items()):
        found[name], told = _prepared(data, sources[name], made, limits, work)
        prefix = f"{name} " if number else ""
        stores |= {f"{prefix}{split}": store for split, store in found[name].stores.items()}
        report |= {f"{prefix}{split}": one for split, one in told.items()}
    return PreparedTasks(made, found, stores, report, trained)


def labelled_texts(
    split: LabelledSplit, *, task: str, labels: tuple[str, ...], on_bad_line: str = "fail"
) -> Iterator[LabelledText]:
    """The examples of a split as text; with skip and replace, those whose label can be learnt."""
    return parsed_lines(_lines(split, task), on_bad_line=on_bad_line, check=partial(check, task=task, labels=labels))


def _prepared(
    data: TaskData, sources: Mapping[str, dict[str, Any]], tokenizer: Tokenizer, limits: TaskLimits, work: Work
) -> tuple[PreparedTask, dict[str, SplitReport]]:
    """The stores of one task; the training split first, which has the labels."""
    labels: tuple[str, ...] = ()
    stores: dict[str, Store] = {}
    report: dict[str, SplitReport] = {}
    for name in ("train", *(name for name in data.splits if name != "train")):
        split, source = data.splits[name], sources[name]
        if data.task in WRITES:
            stores[name], report[name] = pair_store(data.folder / name, name, split, source, tokenizer, limits, work)
            continue
        settled = {key: getattr(limits, key) for key in ("max_source", "truncate", "stride")}
        meta = source | {"tokenizer": tokenizer.fingerprint(), "limits": settled}
        meta |= {} if name == "train" else {"labels": list(labels)}
        reason = work.why(meta, partial(encoded_from, data.folder / name))
        if reason:
            if name == "train" and data.task in (CLASSIFY, TAG, SPAN):
                labels = label_set(parsed_lines(_lines(split, data.task), on_bad_line=work.on_bad_line), data.task)
            parting = Parting(data.task, limits.max_source, limits.stride)
            coder = LabelCoder(tokenizer, parting, limits.truncate == "head", labels, work.on_bad_line)
            _build(data.folder / name, name, split, meta, coder, work)
        stores[name] = Store.open(data.folder / name)
        report[name] = report_of(stores[name], reason)
        labels = tuple(stores[name].summary["labels"])
    return PreparedTask(stores, labels), report


def _build(folder: Path, name: str, split: LabelledSplit, meta: dict[str, Any], coder: LabelCoder, work: Work) -> None:
    tally = Tally()
    with StoreWriter(folder, LABELLED_FIELDS, meta) as writer:
        for chunk in encode_chunks(chunks_of(_lines(split, coder.parting.task)), coder, processes=work.processes):
            writer.add_many(**chunk.arrays)
            tally.add(chunk.tally)
            work.tell(name, tally.examples, None)
        if not tally.examples:
            raise DataError(f"{', '.join(map(label_of, split.files))}: no examples", f"data.{name} needs one at least")
        writer.summary = tally.plain() | {"labels": list(coder.labels)}


def _lines(split: LabelledSplit, task: str) -> Iterator[Raw]:
    columns = LabelColumns(split.source, split.second, split.target)
    return labelled_lines(split.files, format=split.format, columns=columns, task=task)


def _texts(data: TaskData, on_bad_line: str) -> Iterator[str]:
    """Every text of a task's training split."""
    if data.task in WRITES:
        yield from pair_texts(data.splits["train"], on_bad_line)
        return
    for one in parsed_lines(_lines(data.splits["train"], data.task), on_bad_line=on_bad_line):
        yield from (plain_of(text) for text in (one.source, one.second) if text is not None)


def _source(task: str, split: TaskSplit, hashes: dict[Path, str], on_bad_line: str) -> dict[str, Any]:
    """What the examples of a split depend on."""
    if task in WRITES:
        return pairs_meta(split, hashes, on_bad_line)
    fields = {key: getattr(split, key) for key in ("format", "source", "second", "target")}
    inputs = inputs_of(split.files, hashes)
    return {"encoding": ENCODING, "task": task, "inputs": inputs, "fields": fields, "on_bad_line": on_bad_line}


def _joined(sources: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What a vocabulary depends on that is learnt from the texts of several tasks; of one, what the task does."""
    first, *others = sources
    if not others:
        return first
    inputs = {file: digest for one in (first, *others) for file, digest in one["inputs"].items()}
    return {"inputs": inputs, "tasks": [{key: one[key] for key in one if key != "inputs"} for one in (first, *others)]}
