"""From the data and token sections of a recipe to a tokenizer and token stores; builds what is missing or stale.

Below one folder lie `tokenizer/` (only when a vocabulary is trained) and a token store per split. Each remembers the
sha256 of its inputs and every setting that changes its contents; it is built again when one of them differs, and the
reason is reported.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.encoding import CHUNK, FIELDS, Coder, Tally, encode_lines, first_target
from unilmctl.data.parsing import Columns, Record, Text
from unilmctl.data.reading import BadLine, Unread, label_of, lines_of, unreadable
from unilmctl.data.settings import Limits, Split, Vocabulary
from unilmctl.data.store import Store, StoreWriter, difference
from unilmctl.errors import DataError
from unilmctl.files import beside_of, clear_leftovers, publish_folder, sha256, verify_manifest, write_atomically
from unilmctl.tokens import Tokenizer, train

ENCODING = 1
"""Raised when the same text and settings would give other stores."""

MOST_TEXTS = 2_000_000
"""Texts that a vocabulary is learnt from at most: the first ones of the training split."""

STREAM = "a stream"
"""Stands for the sha256 of what can be read only once."""

LEARNT_FROM = "trained.json"
"""Beside a trained vocabulary: what it was trained on."""

Progress = Callable[[str, int, int | None], None]
"""(what is being done, how many lines are done, of how many if known)"""


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
    work = _Work(on_bad_line, processes, rebuild, progress or _silent)
    hashes: dict[Path, str] = {}
    inputs = {name: _inputs(split, hashes) for name, split in splits.items()}
    if isinstance(tokenizer, Path):
        made, trained = Tokenizer.load(tokenizer), None
    else:
        made, trained = _vocabulary(folder / "tokenizer", splits["train"], inputs["train"], tokenizer, work)
    stores, report = {}, {}
    for name, split in splits.items():
        meta = _meta(split, inputs[name], on_bad_line) | {
            "tokenizer": made.fingerprint(),
            "limits": {key: getattr(limits, key) for key in ("max_source", "max_target", "truncate")},
        }
        reason = work.why(meta, partial(_encoded_from, folder / name))
        if reason:
            _build(folder / name, name, split, meta, Coder.of(made, limits), work)
        stores[name] = Store.open(folder / name)
        report[name] = _report(stores[name], reason)
    return Prepared(made, stores, report, trained)


def evaluation_pairs(split: Split, tokenizer: Tokenizer, *, on_bad_line: str = "fail") -> Iterator[Pair]:
    """Sources and references of a split as text, in the order of its store; token lists are joined to text.

    The references are those of the data, else its target. Stores keep the first of them only.
    """

    def text(value: Text) -> str:
        return value if isinstance(value, str) else tokenizer.join(value)

    for record in _records(split, on_bad_line):
        yield Pair(text(record.source), [text(one) for one in record.references or [first_target(record)]])


@dataclass(frozen=True)
class _Work:
    """How the work is done."""

    on_bad_line: str
    processes: int | None
    rebuild: bool
    tell: Progress

    def why(self, wanted: dict[str, Any], found: Callable[[], dict[str, Any]]) -> str | None:
        """Why something has to be built: `found()` gives what it was made from, or a DataError."""
        if self.rebuild:
            return "it was asked for"
        try:
            old = found()
        except DataError as error:
            return error.message
        changed = difference(old.get("inputs"), wanted["inputs"])
        if changed:
            return f"{changed.split(' was ')[0]} has changed"
        if old.get("tokenizer") != wanted.get("tokenizer"):
            return "the vocabulary has changed"
        return difference(old, json.loads(json.dumps(wanted)))


def _silent(_stage: str, _done: int, _total: int | None) -> None:
    """Progress that nobody watches."""


def _build(folder: Path, name: str, split: Split, meta: dict[str, Any], coder: Coder, work: _Work) -> None:
    """Encode a split and publish its store."""
    tally = Tally()
    with StoreWriter(folder, FIELDS, meta) as writer:
        for chunk in encode_lines(_lines(split, work.on_bad_line), coder, processes=work.processes):
            writer.add_many(**chunk.arrays)
            tally.add(chunk.tally)
            work.tell(name, tally.examples, None)
        if not tally.examples:
            raise DataError(f"{', '.join(map(label_of, split.files))}: no examples", f"data.{name} needs one at least")
        writer.summary = tally.plain()


def _vocabulary(
    folder: Path, split: Split, inputs: dict[str, str], wanted: Vocabulary, work: _Work
) -> tuple[Tokenizer, str | None]:
    """The tokenizer that is trained on `split`, and why it was trained now (None: it was there)."""
    settings = {key: getattr(wanted, key) for key in ("kind", "size", "lowercase")}
    meta = _meta(split, inputs, work.on_bad_line) | settings
    reason = work.why(meta, partial(_learnt_from, folder))
    if reason is None:
        return Tokenizer.load(folder), None
    if STREAM in inputs.values():
        raise DataError(
            "a vocabulary cannot be trained on standard input or a pipe: the text is read twice",
            "put the text into a file first, or name tokens.tokenizer",
        )
    texts = _told(islice(_texts(split, work.on_bad_line), MOST_TEXTS), work.tell)
    tokenizer = train(texts, kind=wanted.kind, size=wanted.size, lowercase=wanted.lowercase)
    clear_leftovers(folder)
    temporary = beside_of(folder)
    tokenizer.save(temporary)
    with write_atomically(temporary / LEARNT_FROM) as file:
        file.write((json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode())
    publish_folder(temporary, folder)
    return tokenizer, reason


def _encoded_from(folder: Path) -> dict[str, Any]:
    """What the store at `folder` was made from; DataError when there is none, or not all of it."""
    return Store.open(folder).meta


def _learnt_from(folder: Path) -> dict[str, Any]:
    """What the vocabulary at `folder` was trained on; DataError when there is none, or not all of it."""
    if not (folder / LEARNT_FROM).is_file():
        raise DataError(f"{folder}: no vocabulary yet")
    problems = verify_manifest(folder)
    if problems:
        raise DataError(problems[0])
    return dict(json.loads((folder / LEARNT_FROM).read_bytes()))


def _told(texts: Iterable[str], tell: Progress) -> Iterator[str]:
    """`texts`, with a word about progress now and then."""
    for number, text in enumerate(texts, 1):
        yield text
        if number % CHUNK == 0:
            tell("vocabulary", number, None)


def _texts(split: Split, on_bad_line: str) -> Iterator[str]:
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


def _lines(split: Split, on_bad_line: str) -> Iterator[Unread]:
    columns = Columns(split.source, split.target, split.references)
    return lines_of(split.files, split.target_files, format=split.format, columns=columns, policy=on_bad_line)


def _inputs(split: Split, hashes: dict[Path, str]) -> dict[str, str]:
    """Every file of a split -> its sha256; what can be read only once has none."""
    files = [*split.files, *(split.target_files or [])]
    for path in map(Path, files):
        if path not in hashes:
            hashes[path] = _hash(path)
    return {str(path): hashes[Path(path)] for path in files}


def _hash(path: Path) -> str:
    if str(path) == "-" or path.is_fifo():
        return STREAM
    try:
        return sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _meta(split: Split, inputs: dict[str, str], on_bad_line: str) -> dict[str, Any]:
    """What the records of a split depend on."""
    fields = {key: getattr(split, key) for key in ("format", "source", "target", "references")}
    parallel = split.target_files is not None
    return {"encoding": ENCODING, "inputs": inputs, "parallel": parallel, "fields": fields, "on_bad_line": on_bad_line}


def _report(store: Store, reason: str | None) -> SplitReport:
    """The report of a store, from what was counted when it was built."""
    counted = store.summary
    return SplitReport(
        built=reason,
        examples=len(store),
        lengths={name: {int(n): count for n, count in found.items()} for name, found in counted["lengths"].items()},
        **{key: counted[key] for key in ("tokens", "cut", "empty", "unknown", "bad", "bad_lines")},
    )
