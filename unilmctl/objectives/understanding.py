"""Rows that are understood: everything reads everything, and a head of its own says something of it.

| | row | head |
|---|---|---|
| `labelled` | [CLS] text [SEP], or [CLS] text [SEP] text [SEP] | class or number, at [CLS] |
| `tagged` | [CLS] text [SEP] | a class at the first token of every word |
| `answered` | [CLS] question [SEP] text [SEP] | beginning and end, at [CLS] (no answer) and in the text |

Shapes: T tokens of a row.
"""

from dataclasses import replace

import numpy as np

from unilmctl.objectives.corruption import DEFAULT, Corruption, drop_words
from unilmctl.rows import Frame, Ints, Labelled, Labels, Row
from unilmctl.visibility import FOREVER


def labelled(
    example: Labelled, frame: Frame, random: np.random.Generator, *, head: str, corruption: Corruption = DEFAULT
) -> Row:
    """One text or two in a row of at most `frame.max_source` tokens; `head` predicts the label at [CLS].

    A pair that is too long loses tokens of the longer text first. With probability `corruption.source` a token is
    corrupted (word drop). BERT (arXiv 1810.04805).
    """
    row = read_row(example.source, example.target, frame)
    ids = drop_words(row.ids, frame, random, corruption)
    return replace(row, ids=ids, labels={head: Labels(np.zeros(1, dtype=np.int64), example.label, np.full(1, -1))})


def tagged(
    example: Labelled, frame: Frame, random: np.random.Generator, *, head: str, corruption: Corruption = DEFAULT
) -> Row:
    """A text whose words are tagged at their first tokens. BERT (arXiv 1810.04805)."""
    row = read_row(example.source, example.target, frame)
    numbers = frame.cut(np.asarray(example.label, dtype=np.int64), special=2)
    places = np.flatnonzero(numbers)
    labels = Labels(places + 1, numbers[places] - 1, np.full(len(places), -1))
    return replace(row, ids=drop_words(row.ids, frame, random, corruption), labels={head: labels})


def answered(
    example: Labelled, frame: Frame, random: np.random.Generator, *, head: str, corruption: Corruption = DEFAULT
) -> Row:
    """A question and the text where its answer begins and ends; without an answer both are [CLS].

    Labels are at every slot where an answer might begin or end: 1 where it begins, 2 where it ends, 3 where both do;
    aside the slot of [CLS], by which the labels of one example know each other. BERT (arXiv 1810.04805).
    """
    row = read_row(example.source, example.target, frame)
    slots = answer_slots(len(example.source), len(example.target))
    targets = np.zeros(len(slots), dtype=np.int64)
    first, last = (0, 0) if not len(example.label) else (int(place) + 1 for place in example.label)
    targets[first] += 1
    targets[last] += 2
    labels = Labels(slots, targets, np.full(len(slots), -1), aside=np.zeros((len(slots), 1), dtype=np.int64))
    return replace(row, ids=drop_words(row.ids, frame, random, corruption), labels={head: labels})


def answer_slots(question: int, text: int) -> Ints:
    """The slots at which an answer may begin or end, [1 + text]: [CLS], then the text's, after so long a question."""
    return np.concatenate(([0], np.arange(text) + question + 2))


def read_row(source: Ints, second: Ints, frame: Frame) -> Row:
    """The row of one text, or of two where the second is not empty, without labels."""
    first, other = fitted(source, second, frame)
    size = len(first) + 2
    start, separator = np.array([frame.start]), np.array([frame.separator])
    ids = np.concatenate((start, first, separator, other, separator[: len(other)]))
    index = np.arange(len(ids))
    return Row(
        ids=ids,
        positions=index,
        segments=np.where(index < size, frame.source_segment, frame.target_segment),
        document=np.zeros(len(ids), dtype=np.int64),
        time=np.zeros(len(ids), dtype=np.int64),
        until=np.full(len(ids), FOREVER),
        labels={},
        shows=np.full(len(ids), -1),
    )


def fitted(source: Ints, second: Ints, frame: Frame) -> tuple[Ints, Ints]:
    """Both texts without what does not fit into `frame.max_source`: the longer one gives first."""
    room = frame.max_source - 2 - (len(second) > 0)
    if len(source) + len(second) <= room:
        return source, second
    size = max(room - len(second), min(len(source), room - room // 2)) if len(second) else room
    return frame.cut(source, special=frame.max_source - size), second[: room - size]


def labelled_length(source_lengths: Ints, target_lengths: Ints, frame: Frame) -> Ints:
    """Tokens in the row of each example: from lengths [N] and [N] without special tokens, [N]."""
    whole: Ints = source_lengths + 2 + np.where(target_lengths > 0, target_lengths + 1, 0)
    return np.minimum(whole, frame.max_source)
