"""Encoding by remembered words: most words of a corpus were met before.

The `tokenizers` library spends tens of microseconds on a short text, nearly all of it on words it has seen a thousand
times. Where a text's ids are the ids of its chunks one after another, each chunk needs encoding once. That holds for
two splitters, and is used for no others:

* BERT: it works on single characters and then on words, so an ASCII blank always separates;
* byte-level BPE: a blank that follows a non-blank always begins a new word, and belongs to it.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

MOST_IDS = 1 << 18
"""Remembered ids after which all is forgotten: text without blanks, or full of numbers, must not pile up."""

_BEFORE_BLANK = re.compile(r"(?<=\S)(?= )")

Split = Callable[[str], list[str]]


class Memory:
    """`encode`, with what it answered for every chunk remembered."""

    def __init__(self, split: Split, encode: Callable[[list[str]], list[list[int]]]) -> None:
        self._split, self._encode = split, encode
        self._known: dict[str, list[int]] = {}
        self._held = 0

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text."""
        if self._held > MOST_IDS:
            self._known.clear()
            self._held = 0
        chunks = [self._split(text) for text in texts]
        known = self._known
        new = list({chunk: None for one in chunks for chunk in one if chunk not in known})
        for chunk, ids in zip(new, self._encode(new), strict=True):
            known[chunk] = ids
            self._held += len(ids) + 1
        return [list(chain.from_iterable(map(known.__getitem__, one))) for one in chunks]


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
