"""Sentence tasks: how a passage becomes one or two segments, and what [CLS] must tell about them.

| task | segments | classes |
|---|---|---|
| `none` | the whole passage | |
| `adjacent` | a beginning and its end | |
| `next-sentence` | a beginning, and its end or another document's text | 0 goes on, 1 does not |
| `sentence-order` | a beginning and its end | 0 in order, 1 swapped |
| `sentence-reorder` | the passage, shuffled in up to three pieces | 1! + 2! + 3! orders |
| `sentence-distance` | a beginning, and later text or another document's | 0 adjacent, 1 further on, 2 elsewhere |

A passage is cut where sentences end; one that is a single sentence is cut between any two of its tokens, so that the
classes stay balanced on text without sentence marks. A single token has no class. Two segments together with their
three special tokens fit `Frame.max_source`, so `max_target` should be as large.

Shapes: T tokens of a passage.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import factorial
from typing import NamedTuple

import numpy as np

from unilmctl.rows import Example, Frame, Ints, Labels, Passage, Row

PIECES = 3
"""The most pieces that `sentence_reorder` shuffles."""


class Paired(NamedTuple):
    """What a task makes of a passage: an example, and its class, or None where there is nothing to tell."""

    example: Example
    label: int | None


Pairing = Callable[[Passage, Passage, Frame, np.random.Generator], Paired]
"""From a passage and one of another document."""


def full_text(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """The whole passage, without a class: RoBERTa (arXiv 1907.11692), SpanBERT (arXiv 1907.10529)."""
    del other, frame, random
    text = _Text.of(passage)
    return Paired(_example(text, text.part(0, 0)), None)


def adjacent(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """A beginning to read and its end to write, without a class. UniLM v1 (arXiv 1905.03197)."""
    text, cuts = _Text.of(passage), _cuts(passage)
    if not cuts:
        return full_text(passage, other, frame, random)
    cut = int(random.choice(cuts))
    return Paired(_example(*_fitted(text.part(0, cut), text.part(cut), frame, random)), None)


def next_sentence(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """Does the second segment go on where the first ends? In half of all cases. BERT (arXiv 1810.04805)."""
    text, cuts = _Text.of(passage), _cuts(passage)
    if not cuts:
        return full_text(passage, other, frame, random)
    cut, label = int(random.choice(cuts)), int(random.integers(2))
    first = text.part(0, cut)
    second = _elsewhere(other, len(text) - cut, random) if label else text.part(cut)
    return Paired(_example(*_fitted(first, second, frame, random)), label)


def sentence_order(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """Which of two neighbouring segments comes first? ALBERT (arXiv 1909.11942)."""
    text, cuts = _Text.of(passage), _cuts(passage)
    if not cuts:
        return full_text(passage, other, frame, random)
    cut, label = int(random.choice(cuts)), int(random.integers(2))
    halves = _fitted(text.part(0, cut), text.part(cut), frame, random)
    return Paired(_example(*(halves[::-1] if label else halves)), label)


def sentence_reorder(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """In which order do the pieces stand? One class for each order of each number of pieces. ERNIE 2.0 (1907.12412)."""
    del other, frame
    text, cuts = _Text.of(passage), _cuts(passage)
    count = int(random.integers(min(PIECES, len(cuts) + 1))) + 1
    edges = [0, *sorted(random.permutation(cuts)[: count - 1].tolist()), len(text)]
    pieces = [text.part(start, end) for start, end in pairwise(edges)]
    order = random.permutation(count).tolist()
    shuffled = _Text.joined([pieces[piece] for piece in order])
    return Paired(_example(shuffled, text.part(0, 0)), _orders(count - 1) + _rank(order))


def sentence_distance(passage: Passage, other: Passage, frame: Frame, random: np.random.Generator) -> Paired:
    """Are two segments neighbours, of one document, or of two? A third each. ERNIE 2.0 (arXiv 1907.12412)."""
    text, cuts = _Text.of(passage), _cuts(passage)
    if not cuts:
        return full_text(passage, other, frame, random)
    label = int(random.choice([0, 1, 2] if len(cuts) > 1 else [0, 2]))
    start = end = int(random.choice(cuts))
    if label == 1:
        start, end = sorted(random.choice(cuts, 2, replace=False).tolist())
    first = text.part(0, start)
    second = _elsewhere(other, len(text) - start, random) if label == 2 else text.part(end)
    return Paired(_example(*_fitted(first, second, frame, random)), label)


def with_pair_label(row: Row, head: str, label: int | None) -> Row:
    """The row with `label` for `head` at [CLS], its first slot; the row itself where the label is None."""
    if label is None:
        return row
    # No token of the row shows a class, so there is no answer to look for.
    labels = Labels(np.array([0]), np.array([label]), np.array([-1]))
    return replace(row, labels={**row.labels, head: labels})


def sentence_units(passage: Passage) -> Passage:
    """The passage with every sentence as one unit: what GLM's sentence task hides (arXiv 2103.10360)."""
    return passage._replace(units=tuple(np.zeros(len(sentence), np.int64) for sentence in passage.sentences))


def _orders(pieces: int) -> int:
    """The number of orders of one to so many pieces."""
    return sum(factorial(count) for count in range(1, pieces + 1))


PAIRINGS: dict[str, Pairing] = {
    "none": full_text,
    "adjacent": adjacent,
    "next-sentence": next_sentence,
    "sentence-order": sentence_order,
    "sentence-reorder": sentence_reorder,
    "sentence-distance": sentence_distance,
}
"""Every sentence task by its name, which is also the name of its head."""

CLASSES = {"next-sentence": 2, "sentence-order": 2, "sentence-reorder": _orders(PIECES), "sentence-distance": 3}
"""How many classes the head of each task tells apart."""


@dataclass(frozen=True)
class _Text:
    """Token ids [T], and the number of the unit of each, [T] or None."""

    tokens: Ints
    units: Ints | None

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, passage: Passage) -> "_Text":
        units = passage.units or [None] * len(passage.sentences)
        return cls.joined([cls(*sentence) for sentence in zip(passage.sentences, units, strict=True)])

    @classmethod
    def joined(cls, texts: list["_Text"]) -> "_Text":
        """The texts one after another; no unit reaches from one into the next."""
        units, count = [], 0
        for text in texts:
            if text.units is not None and len(text.units):
                units.append(text.units - text.units.min() + count)
                count = int(units[-1].max()) + 1
        tokens = np.concatenate([np.zeros(0, np.int64), *(text.tokens for text in texts)])
        return cls(tokens, np.concatenate(units) if units else None)

    def part(self, start: int, end: int | None = None) -> "_Text":
        return _Text(self.tokens[start:end], None if self.units is None else self.units[start:end])


def _example(first: _Text, second: _Text) -> Example:
    return Example(first.tokens, second.tokens, first.units, second.units)


def _cuts(passage: Passage) -> list[int]:
    """Where the passage may be cut, in tokens: between sentences or, if there is one only, anywhere inside it."""
    sizes = [len(sentence) for sentence in passage.sentences if len(sentence)]
    return np.cumsum(sizes)[:-1].tolist() if len(sizes) > 1 else list(range(1, sum(sizes)))


def _elsewhere(other: Passage, most: int, random: np.random.Generator) -> _Text:
    """At most so many tokens of another document, from the start of a random sentence on.

    They are no more than what they stand for: rows are as long as their passages, which batches are made by.
    """
    start = int(random.choice([0, *_cuts(other)]))
    return _Text.of(other).part(start, start + most)


def _fitted(first: _Text, second: _Text, frame: Frame, random: np.random.Generator) -> tuple[_Text, _Text]:
    """Both cut to fit a row, the longer one first; each loses tokens at either end, by chance, as BERT does."""
    room = max(2, frame.max_source - 3)
    keep = min(len(first), max(room - room // 2, room - len(second)))
    return _cut(first, keep, random), _cut(second, min(len(second), room - keep), random)


def _cut(text: _Text, size: int, random: np.random.Generator) -> _Text:
    start = int(random.binomial(len(text) - size, 0.5))
    return text.part(start, start + size)


def _rank(order: list[int]) -> int:
    """The number of a permutation among all of its length, in alphabetical order."""
    later = [sum(other < piece for other in order[index + 1 :]) for index, piece in enumerate(order)]
    return sum(count * factorial(len(order) - 1 - index) for index, count in enumerate(later))
