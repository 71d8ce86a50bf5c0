"""Pairs: a split's files to a token store of sources and targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.encoding import FIELDS, Coder, Tally, encode_chunks, first_target
from unilmctl.data.parsing import Columns, Record, Text
from unilmctl.data.reading import BadLine, Chunk, Unread, chunks_of, lines_of
from unilmctl.data.settings import Limits, Split, Vocabulary
from unilmctl.data.store import Store, StoreWriter
from unilmctl.data.streams import label_of
from unilmctl.errors import DataError
from unilmctl.preparation.building import Progress, Work, encoded_from, inputs_of, silent, vocabulary
from unilmctl.tokens import Tokenizer

ENCODING = 1
"""Raised when the same text and settings would give other stores."""


@dataclass(frozen=True)
class SplitReport:
    """What a store holds, and what encoding it met. Dicts are by field, source and target.

    built: why the store was built now; None when it was there already. lengths: length before the cut -> examples.
    bad: lines that could not be read, the first ones in `bad_lines`. cut, empty: examples. unknown: tokens.
    """

    built: str | None
    examples: int
    tokens: dict[str, int]
    lengths: dict[str, dict[int, int]]
    cut: dict[str, int]
    empty: dict[str, int]
    unknown: dict[str, int]
    bad: int
    bad_lines: list[str]


class Prepared(NamedTuple):
    """A tokenizer, a store and a report per split, and why the vocabulary was trained now (None: it was not)."""

    tokenizer: Tokenizer
    stores: dict[str, Store]
    report: dict[str, SplitReport]
    trained: str | None


class Pair(NamedTuple):
    """One example for evaluation, as text."""

    source: str
    references: list[str]


def prepare(
    *,
    folder: Path,
    splits: Mapping[str, Split],
    limits: Limits,
    tokenizer: Path | Vocabulary,
    on_bad_line: str = "fail",
    processes: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """The tokenizer and the token store of every split, built where they are missing, stale or `rebuild` is set.

    folder: where the stores lie. tokenizer: a folder that holds one, or what to train on the split `train`. processes:
    None for one per core. DataError for unreadable data, or a split without examples; ModelError for the tokenizer.
    """
    work = Work(on_bad_line, processes, rebuild, progress or silent)
    hashes: dict[Path, str] = {}
    sources = {name: pairs_meta(split, hashes, on_bad_line) for name, split in splits.items()}
    if isinstance(tokenizer, Path):
        made, trained = Tokenizer.load(tokenizer), None
    else:
        texts = pair_texts(splits["train"], on_bad_line)
        made, trained = vocabulary(folder / "tokenizer", texts, sources["train"], tokenizer, work)
    stores, report = {}, {}
    for name, split in splits.items():
        stores[name], report[name] = pair_store(folder / name, name, split, sources[name], made, limits, work)
    return Prepared(made, stores, report, trained)


def pair_store(
    folder: Path, name: str, split: Split, source: dict[str, Any], tokenizer: Tokenizer, limits: Limits, work: Work
) -> tuple[Store, SplitReport]:
    """The store of a split, built where it is missing or stale; `source` is what its records depend on."""
    settled = {key: getattr(limits, key) for key in ("max_source", "max_target", "truncate")}
    meta = source | {"tokenizer": tokenizer.fingerprint(), "limits": settled}
    reason = work.why(meta, partial(encoded_from, folder))
    if reason:
        _build(folder, name, split, meta, Coder.of(tokenizer, limits), work)
    store = Store.open(folder)
    return store, report_of(store, reason)


def evaluation_pairs(split: Split, tokenizer: Tokenizer, *, on_bad_line: str = "fail") -> Iterator[Pair]:
    """Sources and references of a split as text, in the order of its store; token lists are joined to text.

    The references are those of the data, else its target. Stores keep the first of them only.
    """

    def text(value: Text) -> str:
        return value if isinstance(value, str) else tokenizer.join(value)

    for record in _records(split, on_bad_line):
        yield Pair(text(record.source), [text(one) for one in record.references or [first_target(record)]])


def _build(folder: Path, name: str, split: Split, meta: dict[str, Any], coder: Coder, work: Work) -> None:
    """Encode a split and publish its store."""
    tally = Tally()
    with StoreWriter(folder, FIELDS, meta) as writer:
        for chunk in encode_chunks(_chunks(split, work.on_bad_line), coder, processes=work.processes):
            writer.add_many(**chunk.arrays)
            tally.add(chunk.tally)
            work.tell(name, tally.examples, None)
        if not tally.examples:
            raise DataError(f"{', '.join(map(label_of, split.files))}: no examples", f"data.{name} needs one at least")
        writer.summary = tally.plain()


def pair_texts(split: Split, on_bad_line: str) -> Iterator[str]:
    """Every source and target of a split as text; ready-made tokens are words."""
    for record in _records(split, on_bad_line):
        for text in (record.source, first_target(record)):
            yield text if isinstance(text, str) else " ".join(text)


def _records(split: Split, on_bad_line: str) -> Iterator[Record]:
    """The records of a split that its store holds too, in the same order."""
    for unread in _lines(split, on_bad_line):
        item = unread.record()
        record = item.replacement if isinstance(item, BadLine) else item
        if record is not None:
            yield record


def _chunks(split: Split, on_bad_line: str) -> Iterator[Chunk]:
    columns = Columns(split.source, split.target, split.references)
    return chunks_of(split.files, split.target_files, format=split.format, columns=columns, policy=on_bad_line)


def _lines(split: Split, on_bad_line: str) -> Iterator[Unread]:
    columns = Columns(split.source, split.target, split.references)
    return lines_of(split.files, split.target_files, format=split.format, columns=columns, policy=on_bad_line)


def pairs_meta(split: Split, hashes: dict[Path, str], on_bad_line: str) -> dict[str, Any]:
    """What the records of a split depend on."""
    inputs = inputs_of([*split.files, *(split.target_files or [])], hashes)
    fields = {key: getattr(split, key) for key in ("format", "source", "target", "references")}
    parallel = split.target_files is not None
    return {"encoding": ENCODING, "inputs": inputs, "parallel": parallel, "fields": fields, "on_bad_line": on_bad_line}


def report_of(store: Store, reason: str | None) -> SplitReport:
    """The report of a store, from what was counted when it was built."""
    counted = store.summary
    return SplitReport(
        built=reason,
        examples=len(store),
        lengths={name: {int(n): count for n, count in found.items()} for name, found in counted["lengths"].items()},
        **{key: counted[key] for key in ("tokens", "cut", "empty", "unknown", "bad", "bad_lines")},
    )
