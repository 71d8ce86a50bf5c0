"""Texts with labels: a split's files to a token store of texts and labels."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.encoding import Tally, encode_chunks
from unilmctl.data.labelled import (
    CLASSIFY,
    LABELLED_FIELDS,
    LabelCoder,
    LabelColumns,
    LabelledText,
    Raw,
    chunks_of,
    label_set,
    labelled_lines,
    parsed_lines,
)
from unilmctl.data.settings import LabelledSplit, Limits, Vocabulary
from unilmctl.data.store import Store, StoreWriter
from unilmctl.data.streams import label_of
from unilmctl.errors import DataError
from unilmctl.preparation.building import Progress, Work, encoded_from, inputs_of, silent, vocabulary
from unilmctl.preparation.pairs import SplitReport, report_of
from unilmctl.tokens import Tokenizer

ENCODING = 1
"""Raised when the same text and settings would give other stores."""


class PreparedLabels(NamedTuple):
    """A tokenizer, a store and a report per split, why the vocabulary was trained now (None: it was not), the labels.

    `labels` are the names that a class has, none where numbers are measured.
    """

    tokenizer: Tokenizer
    stores: dict[str, Store]
    report: dict[str, SplitReport]
    trained: str | None
    labels: tuple[str, ...]


def prepare_labelled(
    *,
    folder: Path,
    splits: Mapping[str, LabelledSplit],
    limits: Limits,
    tokenizer: Path | Vocabulary,
    task: str,
    on_bad_line: str = "fail",
    processes: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> PreparedLabels:
    """The tokenizer and the store of every split's texts and labels, built where missing, stale or `rebuild` is set.

    `splits` has a "train", whose labels are those that there are. Otherwise as `preparation.prepare`; lines without a
    label that can be read are passed over unless `on_bad_line` is fail.
    """
    work = Work(on_bad_line, processes, rebuild, progress or silent)
    hashes: dict[Path, str] = {}
    sources = {name: _meta(split, hashes, task, on_bad_line) for name, split in splits.items()}
    if isinstance(tokenizer, Path):
        made, trained = Tokenizer.load(tokenizer), None
    else:
        texts = _texts(splits["train"], on_bad_line)
        made, trained = vocabulary(folder / "tokenizer", texts, sources["train"], tokenizer, work)
    settled = {name: getattr(limits, name) for name in ("max_source", "truncate")}
    known = {"tokenizer": made.fingerprint(), "limits": settled}
    labels: tuple[str, ...] = ()
    stores, report = {}, {}
    for name in ("train", *(name for name in splits if name != "train")):
        meta = sources[name] | known | ({} if name == "train" else {"labels": list(labels)})
        reason = work.why(meta, partial(encoded_from, folder / name))
        if reason:
            if name == "train" and task == CLASSIFY:
                labels = label_set(_parsed(splits[name], on_bad_line))
            coder = LabelCoder.of(
                made,
                longest=limits.max_source,
                keep_end=limits.truncate == "head",
                task=task,
                labels=labels,
                policy=on_bad_line,
            )
            _build(folder / name, name, splits[name], meta, coder, work)
        stores[name] = Store.open(folder / name)
        report[name] = report_of(stores[name], reason)
        labels = tuple(stores[name].summary["labels"])
    return PreparedLabels(made, stores, report, trained, labels)


def labelled_texts(split: LabelledSplit, *, on_bad_line: str = "fail") -> Iterator[LabelledText]:
    """The examples of a split as text, in the order of its store where no label is unknown."""
    return _parsed(split, on_bad_line)


def _build(folder: Path, name: str, split: LabelledSplit, meta: dict[str, Any], coder: LabelCoder, work: Work) -> None:
    tally = Tally()
    with StoreWriter(folder, LABELLED_FIELDS, meta) as writer:
        for chunk in encode_chunks(chunks_of(_lines(split)), coder, processes=work.processes):
            writer.add_many(**chunk.arrays)
            tally.add(chunk.tally)
            work.tell(name, tally.examples, None)
        if not tally.examples:
            raise DataError(f"{', '.join(map(label_of, split.files))}: no examples", f"data.{name} needs one at least")
        writer.summary = tally.plain() | {"labels": list(coder.labels)}


def _lines(split: LabelledSplit) -> Iterator[Raw]:
    columns = LabelColumns(split.source, split.second, split.target)
    return labelled_lines(split.files, format=split.format, columns=columns)


def _parsed(split: LabelledSplit, on_bad_line: str) -> Iterator[LabelledText]:
    return parsed_lines(_lines(split), on_bad_line=on_bad_line)


def _texts(split: LabelledSplit, on_bad_line: str) -> Iterator[str]:
    """Every text of a split; ready-made tokens are words."""
    for one in _parsed(split, on_bad_line):
        for text in (one.source, one.second):
            if text is not None:
                yield text if isinstance(text, str) else " ".join(text)


def _meta(split: LabelledSplit, hashes: dict[Path, str], task: str, on_bad_line: str) -> dict[str, Any]:
    """What the examples of a split depend on."""
    fields = {key: getattr(split, key) for key in ("format", "source", "second", "target")}
    inputs = inputs_of(split.files, hashes)
    return {"encoding": ENCODING, "task": task, "inputs": inputs, "fields": fields, "on_bad_line": on_bad_line}
