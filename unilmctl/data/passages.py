"""Documents of a token store cut into passages of bounded length: whole sentences where they fit.

A passage is a place: where it begins in which document, and how long it is. These are kept, twelve bytes each; the
tokens are read when they are asked for, so that a corpus larger than the memory trains.

Shapes: N passages, D documents, S sentences of a shard.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.documents import UNITS
from unilmctl.data.store import Store
from unilmctl.errors import DataError
from unilmctl.rows import Ints, Passage

Small = NDArray[np.int32]


class Passages:
    """The passages of a store of text, in its order; `[index]` reads one.

    length: tokens of a passage at most; a sentence that is longer is cut. merge: a passage that a document does not
    fill goes on with the next one (RoBERTa's full sentences), after `separator` if there is one. continues [V]: which
    vocabulary entries continue a word, for the units of a store that has none (`Tokenizer.continues`). DataError when
    the store holds no documents.
    """

    def __init__(
        self,
        store: Store,
        length: int,
        *,
        merge: bool = False,
        separator: int | None = None,
        continues: NDArray[np.bool_] | None = None,
    ) -> None:
        self._store, self._continues = store, continues
        self._separator = separator if merge else None
        made = [one for one in _places(store, length, merge, self._separator is not None) if len(one[0])]
        if not made:
            raise DataError(f"{store.folder}: no text to cut into passages")
        self._documents, self._starts, self._lengths = (np.concatenate(column) for column in zip(*made, strict=True))

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> Ints:
        """How many tokens every passage has [N]; no token is read."""
        return self._lengths.astype(np.int64)

    def __getitem__(self, index: int) -> Passage:
        """One passage. IndexError beyond the end."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        document, start = int(self._documents[index]), int(self._starts[index])
        left = int(self._lengths[index])
        sentences: list[Ints] = []
        begins: list[NDArray[np.bool_]] = []
        at = document
        while True:
            tokens, flags, ends = self._stretch(at, start, left)
            sentences += np.split(tokens, ends)
            begins += np.split(flags, ends)
            left -= len(tokens)
            if left <= 0:
                break
            if self._separator is not None:
                sentences.append(np.array([self._separator], dtype=np.int64))
                begins.append(np.ones(1, dtype=np.bool_))
                left -= 1
            at, start = at + 1, 0
        known = self._continues is not None or UNITS in self._store.fields
        return Passage(tuple(sentences), _numbered(begins) if known else None, document)

    def other(self, index: int, random: np.random.Generator) -> Passage:
        """A passage of another document than those of passage `index`, any with the same chance.

        DataError when there is none.
        """
        document = int(self._documents[index])
        last = int(self._documents[index + 1]) if index + 1 < len(self) else document
        first = int(np.searchsorted(self._documents, document, side="left"))
        if first and int(self._starts[first]):
            first -= 1  # the passage before went on into this document
        stop = int(np.searchsorted(self._documents, last, side="right"))
        if stop - first == len(self):
            raise DataError(f"{self._store.folder}: no second document to take a sentence from")
        drawn = int(random.integers(len(self) - (stop - first)))
        return self[drawn if drawn < first else drawn + stop - first]

    def _stretch(self, document: int, start: int, most: int) -> tuple[Ints, NDArray[np.bool_], Ints]:
        """At most `most` tokens of a document from `start` on, which begin a unit, and where sentences end inside."""
        tokens = self._store.part("text", document, start, start + most)
        ends = self._store.field("ends", document) - start
        ends = ends[(ends > 0) & (ends < len(tokens))]
        if UNITS in self._store.fields:
            flags = self._store.part(UNITS, document, start, start + most) > 0
        elif self._continues is not None:
            flags = ~self._continues[tokens]
        else:
            flags = np.zeros(len(tokens), dtype=np.bool_)
        flags[np.concatenate(([0], ends))] = True
        return tokens, flags, ends


def _numbered(begins: list[NDArray[np.bool_]]) -> tuple[Ints, ...]:
    """Numbers of the units that begin at the flags, counted through the passage."""
    numbers = np.cumsum(np.concatenate(begins), dtype=np.int64) - 1
    return tuple(np.split(numbers, np.cumsum([len(one) for one in begins[:-1]], dtype=np.int64)))


def _places(store: Store, length: int, merge: bool, separated: bool) -> Iterator[tuple[Small, Small, Small]]:
    """Document, first token and length of the passages of every shard."""
    before = 0
    for ends, offsets in store.shards("ends"):
        counts = np.diff(offsets)
        pieces, document = _pieces(_sentence_lengths(ends.astype(np.int64), offsets), counts, length)
        after = np.cumsum(pieces)
        place = after - pieces  # of the piece, in the shard's text
        shift = document if separated else 0
        reach = np.searchsorted(after + shift, place + shift + length, side="right")
        stops = np.minimum(reach, np.searchsorted(document, document, side="right")) if not merge else reach
        firsts = _chain(stops)
        lasts = stops[firsts] - 1
        heads = place[np.searchsorted(document, document[firsts], side="left")]  # where their documents begin
        sizes = after[lasts] - place[firsts] + (document[lasts] - document[firsts] if separated else 0)
        found = (document[firsts] + before, place[firsts] - heads, sizes)
        yield found[0].astype(np.int32), found[1].astype(np.int32), found[2].astype(np.int32)
        before += len(counts)


def _sentence_lengths(ends: Ints, offsets: Ints) -> Ints:
    """Lengths [S] from where sentences end in their documents."""
    lengths = np.diff(ends, prepend=0)
    firsts = offsets[:-1]
    lengths[firsts] = ends[firsts]
    return lengths


def _pieces(lengths: Ints, counts: Ints, length: int) -> tuple[Ints, Ints]:
    """Sentences of at most `length` tokens, longer ones in pieces; and the document of each, within the shard."""
    document = np.repeat(np.arange(len(counts)), counts)
    times = -(-lengths // length)
    pieces = np.full(int(times.sum()), length, dtype=np.int64)
    pieces[np.cumsum(times) - 1] = lengths - (times - 1) * length
    return pieces, np.repeat(document, times)


def _chain(stops: Ints) -> Ints:
    """Where passages begin, when one that begins at piece i ends before `stops[i]`."""
    following = stops.tolist()
    firsts, at = [], 0
    while at < len(following):
        firsts.append(at)
        at = following[at]
    return np.array(firsts, dtype=np.int64)
