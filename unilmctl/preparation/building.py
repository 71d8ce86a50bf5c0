"""What building stores of any kind needs: why something is stale, hashes of inputs, a vocabulary of one's own."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from unilmctl.data.reading import CHUNK
from unilmctl.data.settings import Vocabulary
from unilmctl.data.store import Store, difference
from unilmctl.data.streams import unreadable
from unilmctl.errors import DataError
from unilmctl.files import beside_of, clear_leftovers, publish_folder, sha256, verify_manifest, write_atomically
from unilmctl.tokens import Tokenizer, train

MOST_TEXTS = 2_000_000
"""Texts that a vocabulary is learnt from at most: the first ones of the training split."""

STREAM = "a stream"
"""Stands for the sha256 of what can be read only once."""

LEARNT_FROM = "trained.json"
"""Beside a trained vocabulary: what it was trained on."""

Progress = Callable[[str, int, int | None], None]
"""(what is being done, how many lines or documents are done, of how many if known)"""


@dataclass(frozen=True)
class Work:
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


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """Progress that nobody watches."""


def inputs_of(files: Sequence[Path], hashes: dict[Path, str]) -> dict[str, str]:
    """Every file -> its sha256, remembered in `hashes`; what can be read only once has none."""
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


def vocabulary(
    folder: Path, texts: Iterable[str], source: dict[str, Any], wanted: Vocabulary, work: Work
) -> tuple[Tokenizer, str | None]:
    """The tokenizer that is trained on `texts`, and why it was trained now (None: it was there).

    source: what the texts depend on. DataError when they can be read only once.
    """
    meta = source | {key: getattr(wanted, key) for key in ("kind", "size", "lowercase")}
    reason = work.why(meta, partial(_learnt_from, folder))
    if reason is None:
        return Tokenizer.load(folder), None
    if STREAM in meta["inputs"].values():
        raise DataError(
            "a vocabulary cannot be trained on standard input or a pipe: the text is read twice",
            "put the text into a file first, or name tokens.tokenizer",
        )
    told = _told(islice(texts, MOST_TEXTS), work.tell)
    tokenizer = train(told, kind=wanted.kind, size=wanted.size, lowercase=wanted.lowercase)
    clear_leftovers(folder)
    temporary = beside_of(folder)
    try:
        tokenizer.save(temporary)
        with write_atomically(temporary / LEARNT_FROM) as file:
            file.write((json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode())
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tokenizer, reason


def encoded_from(folder: Path) -> dict[str, Any]:
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
