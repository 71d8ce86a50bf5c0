"""Raw text: a split's files to a token store of documents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl.data.documents import TEXT_FIELDS, UNITS, Assembler, TextCoder, TextReader, TextTally, text_blocks
from unilmctl.data.encoding import encode_chunks
from unilmctl.data.settings import TextSplit, Vocabulary
from unilmctl.data.store import Store, StoreWriter
from unilmctl.data.streams import label_of
from unilmctl.data.words import segmenter_version
from unilmctl.errors import DataError
from unilmctl.preparation.building import Progress, Work, encoded_from, inputs_of, silent, vocabulary
from unilmctl.tokens import Tokenizer

ENCODING = 1
"""Raised when the same text and settings would give other stores."""


@dataclass(frozen=True)
class TextReport:
    """What a store of documents holds, and what encoding it met.

    built: why the store was built now; None when it was there already. lengths: tokens of a sentence -> sentences.
    empty: sentences without tokens, which are left out. bad: lines that could not be read, the first in `bad_lines`.
    """

    built: str | None
    documents: int
    sentences: int
    tokens: int
    unknown: int
    empty: int
    lengths: dict[int, int]
    bad: int
    bad_lines: list[str]


class PreparedText(NamedTuple):
    """A tokenizer, a store and a report per split, and why the vocabulary was trained now (None: it was not)."""

    tokenizer: Tokenizer
    stores: dict[str, Store]
    report: dict[str, TextReport]
    trained: str | None


def prepare_text(
    *,
    folder: Path,
    splits: Mapping[str, TextSplit],
    tokenizer: Path | Vocabulary,
    on_bad_line: str = "fail",
    processes: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> PreparedText:
    """The tokenizer and the store of every split's documents, built where they are missing, stale or `rebuild` is set.

    folder: where the stores lie. tokenizer: a folder that holds one, or what to train on the split `train`. processes:
    None for one per core. DataError for unreadable data, or a split without text; ModelError for the tokenizer;
    UsageError when the segmenter is not installed.
    """
    work = Work(on_bad_line, processes, rebuild, progress or silent)
    hashes: dict[Path, str] = {}
    sources = {name: _meta(split, hashes, on_bad_line) for name, split in splits.items()}
    if isinstance(tokenizer, Path):
        made, trained = Tokenizer.load(tokenizer), None
    else:
        texts = _texts(splits["train"], on_bad_line)
        made, trained = vocabulary(folder / "tokenizer", texts, sources["train"], tokenizer, work)
    stores, report = {}, {}
    for name, split in splits.items():
        meta = sources[name] | {"tokenizer": made.fingerprint()}
        reason = work.why(meta, partial(encoded_from, folder / name))
        if reason:
            _build(folder / name, name, split, meta, TextCoder(made, _reader(split, on_bad_line)), work)
        stores[name] = Store.open(folder / name)
        report[name] = _report(stores[name], reason)
    return PreparedText(made, stores, report, trained)


def _build(folder: Path, name: str, split: TextSplit, meta: dict[str, Any], coder: TextCoder, work: Work) -> None:
    """Encode a split and publish its store."""
    tally, assembler, documents = TextTally(), Assembler(), 0
    fields = TEXT_FIELDS if split.segmenter is None else (*TEXT_FIELDS, UNITS)
    with StoreWriter(folder, fields, meta) as writer:
        for part in encode_chunks(text_blocks(split.files, split.format), coder, processes=work.processes):
            tally.add(part.tally)
            documents += writer.add_many(**assembler.add(part))
            work.tell(name, documents, None)
        documents += writer.add_many(**assembler.finish())
        if not documents:
            raise DataError(f"{', '.join(map(label_of, split.files))}: no text", f"data.{name} needs one line at least")
        writer.summary = tally.plain()


def _reader(split: TextSplit, on_bad_line: str) -> TextReader:
    return TextReader(split.documents, split.field, split.segmenter, on_bad_line)


def _texts(split: TextSplit, on_bad_line: str) -> Iterator[str]:
    """Every sentence of a split as text; ready-made tokens are words."""
    reader = _reader(split, on_bad_line)
    for block in text_blocks(split.files, split.format):
        for sentence in reader.sentences(block, TextTally())[0]:
            yield sentence if isinstance(sentence, str) else " ".join(sentence)


def _meta(split: TextSplit, hashes: dict[Path, str], on_bad_line: str) -> dict[str, Any]:
    """What the documents of a split depend on."""
    return {
        "encoding": ENCODING,
        "inputs": inputs_of(split.files, hashes),
        "format": split.format,
        "documents": split.documents,
        "field": split.field,
        "segmenter": segmenter_version(split.segmenter),
        "on_bad_line": on_bad_line,
    }


def _report(store: Store, reason: str | None) -> TextReport:
    """The report of a store, from what was counted when it was built."""
    counted = dict(store.summary)
    lengths = {int(length): count for length, count in counted.pop("lengths").items()}
    return TextReport(built=reason, documents=len(store), lengths=lengths, **counted)
