"""A stream of records, answered in order with constant memory.

Records are taken in windows: as many as fit, or as have arrived. A window is tokenised at once, decoded in batches of
similar length, and its answers are given out in input order as soon as their turn has come.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unilmctl.data.parsing import Record
from unilmctl.errors import DataError
from unilmctl.generation.generator import Generator
from unilmctl.generation.lines import Item
from unilmctl.search import Hypothesis
from unilmctl.tokens import Tokenizer

WINDOW = 1024
"""Most records that are read ahead."""

WINDOW_CHARACTERS = 1 << 22
"""Most characters of source text that are read ahead, or one record."""


@dataclass
class Tally:
    """What a stream has seen: records, sources that were cut, lines that could not be used."""

    records: int = 0
    cut: int = 0
    bad: int = 0


class Answer(NamedTuple):
    """A record and its hypotheses: none for an empty source, and for a bad line that could not be mended."""

    record: Item
    hypotheses: list[Hypothesis]


def generate_stream(
    generator: Generator, records: Iterable[Item | None], tally: Tally, *, prefix: str | None = None
) -> Iterator[list[Answer]]:
    """Answers in input order, in groups as they become ready; None among the records asks for what there is so far.

    A record's place in the stream is its key for sampling. An error of the input is raised after everything before it
    was answered. `prefix`: how every output begins.
    """
    failure: list[DataError] = []
    for window in windows(_until_failure(records, failure)):
        yield from _answered(generator, window, tally, prefix)
    if failure:
        raise failure[0]


def windows(records: Iterable[Item | None]) -> Iterator[list[Item]]:
    """Records in lists of bounded size; one ends at every None."""
    window: list[Item] = []
    size = 0
    for record in records:
        if record is not None:
            window.append(record)
            size += len(record.source) if isinstance(record, Record) else 0
        if window and (record is None or len(window) == WINDOW or size >= WINDOW_CHARACTERS):
            yield window
            window, size = [], 0
    if window:
        yield window


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


def _until_failure(records: Iterable[Item | None], failure: list[DataError]) -> Iterator[Item | None]:
    try:
        yield from records
    except DataError as error:
        failure.append(error)


def _answered(generator: Generator, window: list[Item], tally: Tally, prefix: str | None) -> Iterator[list[Answer]]:
    """The answers of one window, in groups, in order."""
    found = [usable(item, tally) for item in window]
    some = [(place, record) for place, record in enumerate(found) if record is not None]
    encoded = text_ids(generator.tokenizer, [record.source for _, record in some])
    work = [
        (place, ids)
        for (place, record), ids in zip(some, encoded, strict=True)
        if ids or not isinstance(record.source, str)
    ]
    tally.cut += sum(len(ids) > generator.longest_source for _, ids in work)
    keys = [tally.records + place for place, _ in work]
    tally.records += len(window)
    done: dict[int, list[Hypothesis]] = dict.fromkeys(range(len(window)), [])
    for place, _ in work:
        del done[place]
    given = 0
    beginnings = None if prefix is None else [generator.tokenizer.encode(prefix)] * len(work)
    for batch in generator.batches([ids for _, ids in work], keys=keys, prefixes=beginnings):
        done.update((work[index][0], hypotheses) for index, hypotheses in batch)
        ready = _run(done, given)
        if ready:
            yield [Answer(window[given + offset], done.pop(given + offset)) for offset in range(ready)]
            given += ready
    if given < len(window):
        yield [Answer(window[place], done.pop(place)) for place in range(given, len(window))]


def _run(done: dict[int, list[Hypothesis]], start: int) -> int:
    """How many answers are ready from `start` on without a gap."""
    end = start
    while end in done:
        end += 1
    return end - start
