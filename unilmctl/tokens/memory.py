"""Encoding by remembered words: most words of a corpus were met before.

The libraries spend tens of microseconds on a short text, nearly all of it on words they have seen a thousand times.
Where a text's ids are the ids of its chunks one after another, each chunk needs encoding once. That holds for three
splitters, and is used for no others:

* BERT: it works on single characters and then on words, so an ASCII blank always separates;
* byte-level BPE: a blank that follows a non-blank always begins a new word, and belongs to it;
* SentencePiece (unigram): see `pieces`, which tells the few words that are not safe apart.

Shapes: N texts, W chunks of all texts, T ids of all texts.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_IDS = 1 << 19
"""Remembered ids after which all is forgotten: text without blanks, or full of numbers, must not pile up."""

NOT_APART = 0
"""The number of the chunks that cannot be encoded without their text."""

_BEFORE_BLANK = re.compile(r"(?<=\S)(?= )")

Split = Callable[[str], list[str]]
"""A text -> its chunks, at least one."""

Flat = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Ids of all texts one after another [T], and how many each has [N]."""


class Memory:
    """Encodes texts chunk by chunk, with what was found for every chunk remembered.

    apart: chunks -> the ids of each, None where it takes the whole text. whole: texts -> the ids of each.
    """

    def __init__(
        self,
        split: Split,
        apart: Callable[[list[str]], Sequence[list[int] | None]],
        whole: Callable[[Sequence[str]], list[list[int]]],
    ) -> None:
        self._split, self._apart, self._whole = split, apart, whole
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids = np.zeros(0, dtype=np.int32)
        self._starts = np.zeros(1, dtype=np.int64)  # of number 0, which has no ids
        self._sizes = np.zeros(1, dtype=np.int64)

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """Ids of all texts."""
        if not texts:
            return flat([])
        if len(self._ids) + len(self._numbers) > MOST_IDS:
            self._forget()
        chunks = list(map(self._split, texts))
        numbers = self._numbers_of(list(chain.from_iterable(chunks)))  # [W]
        sizes = self._sizes[numbers]
        firsts = np.cumsum([0, *map(len, chunks[:-1])])
        lengths = np.add.reduceat(sizes, firsts)
        shift = self._starts[numbers] - (np.cumsum(sizes) - sizes)
        ids = self._ids[np.repeat(shift, sizes) + np.arange(int(sizes.sum()))]
        return self._mended(texts, np.logical_or.reduceat(numbers == NOT_APART, firsts), ids, lengths)

    def _numbers_of(self, words: list[str]) -> NDArray[np.int64]:
        """The number of every chunk; new ones get theirs."""
        found = list(map(self._numbers.get, words))
        if None in found:
            new = list({word: None for word, number in zip(words, found, strict=True) if number is None})
            encoded = self._apart(new)
            sizes = [0 if ids is None else len(ids) for ids in encoded]
            free = len(self._sizes)
            for number, (word, ids) in enumerate(zip(new, encoded, strict=True), free):
                self._numbers[word] = NOT_APART if ids is None else number
            self._starts = np.concatenate((self._starts, len(self._ids) + np.cumsum(sizes) - sizes))
            self._sizes = np.concatenate((self._sizes, sizes))
            known = chain.from_iterable(ids for ids in encoded if ids is not None)
            self._ids = np.concatenate((self._ids, np.fromiter(known, dtype=np.int32)))
            found = list(map(self._numbers.get, words))
        return np.array(found, dtype=np.int64)

    def _mended(
        self, texts: Sequence[str], hard: NDArray[np.bool_], ids: NDArray[np.int32], lengths: NDArray[np.int64]
    ) -> Flat:
        """The ids, with those of the texts that are `hard` [N] taken from the library."""
        if not hard.any():
            return ids, lengths
        others, sizes = flat(self._whole([texts[index] for index in np.flatnonzero(hard).tolist()]))
        easy = np.repeat(~hard, lengths)
        lengths[hard] = sizes
        made = np.empty(int(lengths.sum()), dtype=np.int32)
        place = np.repeat(~hard, lengths)
        made[place], made[~place] = ids[easy], others
        return made, lengths


def flat(encoded: Sequence[list[int]]) -> Flat:
    """Lists of ids as one array."""
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lengths.sum())), lengths


def lists(encoded: Flat) -> list[list[int]]:
    """The ids of every text as a list of its own."""
    ids = encoded[0].tolist()
    return [ids[start:end] for start, end in pairwise([0, *np.cumsum(encoded[1]).tolist()])]


def splitter(definition: dict[str, Any]) -> Split | None:
    """The chunks that may be encoded apart under a tokenizer.json; None when only whole texts are safe."""
    names = {part: (definition.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer")}
    if any(not token["special"] for token in definition.get("added_tokens") or []):
        return None  # a token that is recognised in text may hold blanks or eat them
    if names == {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}:
        return _at_blanks
    bytes_ = definition.get("pre_tokenizer") or {}
    plain = bytes_.get("type") == "ByteLevel" and bytes_.get("use_regex", True) and not bytes_.get("add_prefix_space")
    return _BEFORE_BLANK.split if plain and names["normalizer"] in (None, "Lowercase") else None


def _at_blanks(text: str) -> list[str]:
    return text.split(" ")
