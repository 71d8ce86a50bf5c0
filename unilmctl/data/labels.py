"""Labelled texts to token ids and to the numbers that a store keeps of their labels (no torch).

| task | kept of a label |
|---|---|
| `classify` | its number |
| `regress` | the bits of a float32, as two numbers of 16 bits, the lower first |
| `tag` | for every token of the text: 0, or where a word begins the number of its tag + 1 |
| `span` | the first and the last token of the answer in the second text; nothing: it has none in this window |

Shapes: N examples of a chunk, T tokens of a text.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.encoding import FIELDS, SHOWN, Coder, Encoded, Tally
from unilmctl.data.labelled import CLASSIFY, REGRESS, SPAN, TAG, LabelledText, Raw
from unilmctl.data.parts import Part, Parting
from unilmctl.errors import DataError
from unilmctl.tokens import Tokenizer, flat

CHUNK = 2000
"""Lines that are encoded at a time."""

LARGEST = 3.4e38
"""No float32 is larger, as good as."""

LABEL = "label"
LABELLED_FIELDS = (*FIELDS, LABEL)
"""Fields of a store: the text, the second text (nothing where there is none), and what is to be said of them."""


@dataclass(frozen=True)
class LabelCoder:
    """Encodes chunks of lines for a task; `labels` are the names that there are to choose from, in their order."""

    tokenizer: Tokenizer
    parting: Parting
    keep_end: bool
    labels: tuple[str, ...]
    on_bad_line: str

    def __call__(self, chunk: Sequence[Raw]) -> Encoded:
        """Parse, encode, part and count. DataError names the line."""
        tally = Tally()
        texts = [text for raw in chunk if (text := self._kept(raw, tally)) is not None]
        return self._parted(texts, tally) if self.parting.task in VALUES_OF_PARTS else self._whole(texts, tally)

    def _whole(self, texts: list[LabelledText], tally: Tally) -> Encoded:
        """One example a text, cut where it alone is too long."""
        tally.examples = len(texts)
        room = dict.fromkeys(FIELDS, self.parting.longest - 2)
        coder = Coder(self.tokenizer, room, self.keep_end)
        fields = {"source": [text.source for text in texts], "target": [text.second or "" for text in texts]}
        arrays = {name: coder.field(name, fields[name], tally) for name in FIELDS}
        return Encoded(arrays | {LABEL: flat([VALUES[self.parting.task](one, self.labels) for one in texts])}, tally)

    def _parted(self, texts: list[LabelledText], tally: Tally) -> Encoded:
        """An example for every part of a text."""
        found = self.parting.parts(self.tokenizer, [(text.source, text.second) for text in texts])
        values = VALUES_OF_PARTS[self.parting.task]
        labels = [value for text, parts in zip(texts, found, strict=True) for value in values(text, parts, self.labels)]
        parts = [part for several in found for part in several]
        tally.examples = len(parts)
        arrays = {"source": flat([part.source for part in parts]), "target": flat([part.second for part in parts])}
        for name, (tokens, lengths) in arrays.items():
            tally.lengths[name] = Counter(lengths.tolist())
            tally.empty[name], tally.tokens[name], tally.cut[name] = int((lengths == 0).sum()), len(tokens), 0
            tally.unknown[name] = int((tokens == self.tokenizer.roles.unknown).sum())
        return Encoded(arrays | {LABEL: flat(labels)}, tally)

    def _kept(self, raw: Raw, tally: Tally) -> LabelledText | None:
        try:
            text = raw.parsed()
            check(text, self.parting.task, self.labels)
        except DataError as error:
            if self.on_bad_line == "fail":
                raise
            tally.bad += 1
            tally.bad_lines = [*tally.bad_lines, error.message][:SHOWN]
            return None
        return text


def check(text: LabelledText, task: str, labels: Sequence[str]) -> None:
    """DataError for a label that the task cannot learn."""
    if task == TAG:
        for tag in text.tags:
            _number(tag, "tag", text.where, labels)
    elif task in VALUES:
        VALUES[task](text, labels)


def chunks_of(lines: Iterator[Raw]) -> Iterator[list[Raw]]:
    """Lines, so many at a time."""
    while chunk := list(islice(lines, CHUNK)):
        yield chunk


def _number(name: str, what: str, where: str, labels: Sequence[str]) -> int:
    if name not in labels:
        some = ", ".join([*labels[:8], *(["..."] if len(labels) > 8 else [])])
        raise DataError(f"{where}: the training data has no {what} {name[:40]!r}", f"it has {some}")
    return labels.index(name)


def _class(text: LabelledText, labels: Sequence[str]) -> list[int]:
    return [_number(text.label, "label", text.where, labels)]


def _bits(text: LabelledText, labels: Sequence[str]) -> list[int]:
    try:
        value = float(text.label)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        what = "is not a number" if math.isnan(value) else "is too large a number"
        raise DataError(f"{text.where}: {text.label[:40]!r} {what}", "the task regress learns numbers")
    return [int(half) for half in np.array([value], dtype="<f4").view("<u2")]


def _tags(text: LabelledText, parts: Sequence[Part], labels: Sequence[str]) -> Iterator[list[int]]:
    number = {label: place for place, label in enumerate(labels, start=1)}
    tags = iter(text.tags)
    for part in parts:
        values = [0] * len(part.source)
        for mark in part.marks:
            values[mark] = number[next(tags)]
        yield values


def _spans(text: LabelledText, parts: Sequence[Part], labels: Sequence[str]) -> Iterator[list[int]]:
    """The first answer that lies in a window, by the tokens that hold its first and its last character."""
    del labels
    for part in parts:
        found: list[int] = []
        for answer in text.answers:
            first = bisect_right(part.marks, answer.start) - 1
            last = bisect_left(part.marks, answer.start + len(answer.text)) - 1
            if not found and 0 <= first <= last < len(part.second):
                found = [first, last]
        yield found


VALUES: dict[str, Callable[[LabelledText, Sequence[str]], list[int]]] = {CLASSIFY: _class, REGRESS: _bits}
"""What a store keeps of the label of a text, by task."""

VALUES_OF_PARTS: dict[str, Callable[[LabelledText, Sequence[Part], Sequence[str]], Iterator[list[int]]]] = {
    TAG: _tags,
    SPAN: _spans,
}
"""What it keeps of a text that is read in parts, for each of them."""


def number_of(values: NDArray[np.int64]) -> float:
    """The number that `regress` stored as these two."""
    return float(values.astype("<u2").view("<f4")[0])
