"""A stream of records, answered in order with constant memory.

Records are taken in windows: as many as fit, or as have arrived. A window is tokenised at once and handed to a desk,
and its answers are given out in input order as soon as their turn has come. A desk that works by itself has two windows
at most: while it finishes one, the next is read.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from unilmctl.data.parsing import Record
from unilmctl.data.reading import BadLine
from unilmctl.errors import DataError
from unilmctl.generation.generator import Generator
from unilmctl.generation.lines import Item
from unilmctl.generation.sharding import WHOLE, Shard
from unilmctl.generation.wishes import spellings
from unilmctl.generation.work import WINDOW, Alone, Desk, Found, Work, decoder_of
from unilmctl.search import Hypothesis, Task
from unilmctl.tokens import Tokenizer

WINDOW_CHARACTERS = 1 << 22
"""Most characters of source text that are read ahead, or one record."""


@dataclass
class Tally:
    """What a stream has seen: records, sources that were cut, lines that could not be used."""

    records: int = 0
    cut: int = 0
    bad: int = 0


class Answer(NamedTuple):
    """A record and its hypotheses: none for a bad line that could not be mended, and for an empty source.

    An empty source has hypotheses where the model goes on with it.
    """

    record: Item
    hypotheses: list[Hypothesis]


def generate_stream(
    generator: Generator,
    records: Iterable[Item | None],
    tally: Tally,
    *,
    desk: Desk | None = None,
    prefix: str | None = None,
    shard: Shard = WHOLE,
    forgiving: bool = False,
) -> Iterator[list[Answer]]:
    """Answers in input order, in groups as they become ready; None among the records asks for what there is so far.

    A record's number in the whole input is its key for sampling; only those of `shard` are answered. An error of the
    input is raised after everything before it was answered. `desk`: who decodes; None: this process. `prefix`: how an
    output begins whose record does not say it. `forgiving`: a record whose wishes cannot be met counts as a bad line,
    instead of a DataError.
    """
    desk = desk or Alone(decoder_of(generator))
    failure: list[DataError] = []
    waiting = _Waiting(desk)
    keys = count(shard.index, shard.count)
    beginning = [] if prefix is None else generator.tokenizer.encode(prefix)
    mine = _until_failure(_possible(shard.mine(records), generator, beginning, forgiving=forgiving), failure)
    for window, paused in _windows(mine, desk.window):
        numbered = [(next(keys), item) for item in window]
        waiting.admit(numbered, list(_work(numbered, generator, tally, beginning)))
        yield from waiting.answers(len(window) if desk.ahead and not paused else 0)
    yield from waiting.answers(0)
    if failure:
        raise failure[0]


def windows(records: Iterable[Item | None]) -> Iterator[list[Item]]:
    """Records in lists of bounded size; one ends at every None."""
    return (window for window, _ in _windows(records, WINDOW) if window)


def text_ids(tokenizer: Tokenizer, texts: list[str | list[str]]) -> list[list[int]]:
    """The token ids of texts; ready-made tokens are looked up as they are."""
    whole = iter(tokenizer.encode_batch([text for text in texts if isinstance(text, str)]))
    return [next(whole) if isinstance(text, str) else tokenizer.encode_tokens(text) for text in texts]


def usable(item: Item, tally: Tally) -> Record | None:
    """The record of a line, mended if need be; a line that was bad is counted."""
    if isinstance(item, Record):
        return item
    tally.bad += 1
    return item.replacement


class _Waiting:
    """Records that wait for their answers, first come first."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._records: deque[tuple[int, Item]] = deque()
        self._done: dict[int, list[Hypothesis]] = {}

    def admit(self, numbered: list[tuple[int, Item]], work: list[Work]) -> None:
        """Takes records in by their keys; those without work need no decoding."""
        self._records.extend(numbered)
        self._done.update((key, []) for key, _ in numbered)
        for one in work:
            del self._done[one.task.key]
        if work:
            self._desk.submit(work)

    def answers(self, most: int) -> Iterator[list[Answer]]:
        """Groups of answers, until at most `most` records wait."""
        while True:
            if ready := list(self._ready()):
                yield ready
            if len(self._records) <= most:
                return
            found: Found = self._desk.collect()
            self._done.update(found)

    def _ready(self) -> Iterator[Answer]:
        while self._records and self._records[0][0] in self._done:
            key, item = self._records.popleft()
            yield Answer(item, self._done.pop(key))


def _windows(records: Iterable[Item | None], most: int) -> Iterator[tuple[list[Item], bool]]:
    """Records in lists, and whether the input paused after them."""
    window: list[Item] = []
    size = 0
    for record in records:
        if record is not None:
            window.append(record)
            size += len(record.source) if isinstance(record, Record) else 0
        if record is None or len(window) == most or size >= WINDOW_CHARACTERS:
            yield window, record is None
            window, size = [], 0
    if window:
        yield window, False


def _until_failure(records: Iterable[Item | None], failure: list[DataError]) -> Iterator[Item | None]:
    try:
        yield from records
    except DataError as error:
        failure.append(error)


def _possible(
    records: Iterable[Item | None], generator: Generator, beginning: list[int], *, forgiving: bool
) -> Iterator[Item | None]:
    """The records whose wishes can be met; DataError, or a bad line, for one whose cannot."""
    for item in records:
        record = item.replacement if isinstance(item, BadLine) else item
        if record is None or not (record.prefix or record.phrases):
            yield item
            continue
        try:
            generator.wishes.task(_task(0, record, generator.tokenizer, beginning))
        except DataError as error:
            message = f"{record.where}: {error.message}"
            if not forgiving:
                raise DataError(message, error.hint) from error
            yield BadLine(record.where, message, None)
        else:
            yield item


def _task(key: int, record: Record, tokenizer: Tokenizer, beginning: list[int]) -> Task:
    """What a record wishes for; `beginning`: how its output begins if it does not say it."""
    prefix = beginning if record.prefix is None else text_ids(tokenizer, [record.prefix])[0]
    return Task(key, prefix, [spellings(tokenizer, text) for text in record.phrases])


def _work(numbered: list[tuple[int, Item]], generator: Generator, tally: Tally, beginning: list[int]) -> Iterator[Work]:
    """What there is to decode in one window: everything but empty sources and lines that cannot be used.

    To go on with nothing is to write: a model that does so is given empty lines too.
    """
    tokenizer = generator.tokenizer
    found = [(key, item, usable(item, tally)) for key, item in numbered]
    some = [(key, item is record, record) for key, item, record in found if record is not None]
    tally.records += len(numbered)
    sources = text_ids(tokenizer, [record.source for _, _, record in some])
    for (key, sound, record), source in zip(some, sources, strict=True):
        if source or not isinstance(record.source, str) or (generator.continues and sound):
            tally.cut += len(source) > generator.longest_source
            yield Work(_task(key, record, tokenizer, beginning), source)
