"""Lines of text to token ids cut to their limits, on all cores, in order, in constant memory (no torch).

The lines are parsed where they are encoded: a process gets chunks of raw lines and gives back flat arrays, and at most
two chunks per process are under way. Small data is encoded in this process, because starting others takes longer.
"""

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.parsing import Record, Text
from unilmctl.data.reading import BadLine, Chunk, JsonLines, Unread
from unilmctl.data.settings import Limits
from unilmctl.errors import OutOfMemory
from unilmctl.tokens import Flat, Tokenizer, flat

C = TypeVar("C")
E = TypeVar("E")

FIELDS = ("source", "target")
ALONE = 40
"""Chunks that are encoded before other processes are started."""
SHOWN = 5
"""Bad lines that are kept to be shown."""


@dataclass
class Tally:
    """What was counted while encoding. `lengths` are those before the cut: field -> length -> examples."""

    examples: int = 0
    bad: int = 0
    bad_lines: list[str] = field(default_factory=list)
    empty: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in FIELDS})

    def add(self, other: "Tally") -> None:
        """Count in what another chunk counted."""
        self.examples += other.examples
        self.bad += other.bad
        self.bad_lines = (self.bad_lines + other.bad_lines)[:SHOWN]
        for mine, theirs in (
            (self.empty, other.empty),
            (self.cut, other.cut),
            (self.tokens, other.tokens),
            (self.unknown, other.unknown),
        ):
            mine.update(theirs)
        for name, lengths in other.lengths.items():
            self.lengths[name].update(lengths)

    def plain(self) -> dict[str, Any]:
        """The counts as JSON values."""
        counts = {name: dict(getattr(self, name)) for name in ("empty", "cut", "tokens", "unknown")}
        lengths = {name: dict(sorted(found.items())) for name, found in self.lengths.items()}
        return {**counts, "lengths": lengths, "bad": self.bad, "bad_lines": self.bad_lines}


class Encoded(NamedTuple):
    """A chunk of examples: for each field all tokens one after another, and the lengths [N]."""

    arrays: dict[str, tuple[NDArray[np.int32], NDArray[np.int64]]]
    tally: Tally


@dataclass(frozen=True)
class Coder:
    """Encodes chunks of lines. `limits` are numbers of ids without special tokens."""

    tokenizer: Tokenizer
    limits: dict[str, int]
    keep_end: bool

    @staticmethod
    def of(tokenizer: Tokenizer, limits: Limits) -> "Coder":
        """A coder that leaves room for [CLS] and [SEP] in the source, and for [SEP] in the target."""
        room = {"source": limits.max_source - 2, "target": limits.max_target - 1}
        return Coder(tokenizer, room, limits.truncate == "head")

    def __call__(self, chunk: Chunk) -> Encoded:
        """Parse, encode, cut and count. DataError names the line."""
        tally = Tally()
        pairs = chunk.pairs() if isinstance(chunk, JsonLines) else None
        texts: tuple[Sequence[Text], Sequence[Text]]
        if pairs is not None:
            texts = pairs
        else:
            records = list(_kept(chunk.unread() if isinstance(chunk, JsonLines) else chunk, tally))
            texts = [one.source for one in records], [first_target(one) for one in records]
        tally.examples = len(texts[0])
        sources, targets = texts
        found = {"source": self.field("source", sources, tally), "target": self.field("target", targets, tally)}
        return Encoded(found, tally)

    def field(self, name: str, texts: Sequence[Text], tally: Tally) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of all `texts` one after another, and how many each has [N], cut to the limit of field `name`."""
        tokens, lengths = encode_texts(self.tokenizer, texts)
        most = self.limits[name]
        tally.lengths[name] = Counter(dict(zip(*_counted(lengths), strict=True)))
        tally.cut[name] = int((lengths > most).sum())
        tally.empty[name] = int((lengths == 0).sum())
        if tally.cut[name]:
            tokens = _cut(tokens, lengths, most, keep_end=self.keep_end and name == "source")
            lengths = np.minimum(lengths, most)
        tally.tokens[name] = len(tokens)
        tally.unknown[name] = int((tokens == self.tokenizer.roles.unknown).sum())
        return tokens, lengths


def encode_texts(tokenizer: Tokenizer, texts: Sequence[Text]) -> Flat:
    """Ids of raw texts and of ready-made tokens."""
    raw = [text for text in texts if isinstance(text, str)]
    if len(raw) == len(texts):
        return tokenizer.encode_flat(raw)
    encoded = iter(tokenizer.encode_batch(raw))
    tokens = tokenizer.encode_tokens
    return flat([next(encoded) if isinstance(text, str) else tokens(text) for text in texts])


def _cut(tokens: NDArray[np.int32], lengths: NDArray[np.int64], most: int, *, keep_end: bool) -> NDArray[np.int32]:
    """The tokens of every text without those that are more than `most`, from its end or its beginning."""
    place = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return tokens[place >= np.repeat(lengths - most, lengths)] if keep_end else tokens[place < most]


def first_target(record: Record) -> Text:
    """What a record teaches: its target, else its first reference."""
    if record.target is not None:
        return record.target
    return record.references[0] if record.references else ""


def encode_chunks(given: Iterable[C], coder: Callable[[C], E], *, processes: int | None = None) -> Iterator[E]:
    """What `coder` makes of every chunk, in order; both must pickle. processes: None for one per core."""
    chunks = iter(given)
    yield from map(coder, islice(chunks, ALONE))
    first = next(chunks, None)
    if first is None:
        return
    count = processes or len(os.sched_getaffinity(0))
    rest = chain([first], chunks)
    yield from map(coder, rest) if count == 1 else _shared(rest, coder, count)


def _shared(chunks: Iterable[C], coder: Callable[[C], E], processes: int) -> Iterator[E]:
    """Chunks encoded by other processes, never more than two each under way."""
    waiting: deque[Future[E]] = deque()
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start, initargs=(coder,))
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OutOfMemory("a process that was encoding text was killed", "use fewer: --workers 1") from error
    finally:
        pool.shutdown(cancel_futures=True)


_coder: Callable[[Any], Any] | None = None


def _start(coder: Callable[[Any], Any]) -> None:
    """In a new process: one thread, and Ctrl-C is the parent's to handle."""
    global _coder  # noqa: PLW0603 - what a worker is made for
    _coder = coder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(chunk: Any) -> Any:
    assert _coder is not None
    return _coder(chunk)


def _kept(chunk: Sequence[Unread], tally: Tally) -> Iterator[Record]:
    """The records of a chunk, bad lines counted."""
    for unread in chunk:
        item = unread.record()
        if isinstance(item, BadLine):
            tally.bad += 1
            if len(tally.bad_lines) < SHOWN:
                tally.bad_lines.append(item.message)
            if item.replacement is None:
                continue
            item = item.replacement
        yield item


def _counted(values: NDArray[np.int64]) -> tuple[Any, Any]:
    found, counts = np.unique(values, return_counts=True)
    return found.tolist(), counts.tolist()
