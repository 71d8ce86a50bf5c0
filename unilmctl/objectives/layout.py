"""Putting columns side by side into a row.

Objectives over one text share one numbering: `place`, the index of a token in the uncorrupted text. Position, label and
the leak check's `shows` all follow from it.

Shapes: T tokens of the text, C columns of a group.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unilmctl.rows import LANGUAGE_MODEL, Ints, Labels, Row
from unilmctl.visibility import FOREVER


class Columns(NamedTuple):
    """Some columns of a row: token ids [C], their places in the text [C], and when they are written and readable.

    `predicts` says which columns predict the token of their own place. All but `ids` and `place` are [C], or one value
    for all.
    """

    ids: Ints
    place: Ints
    time: Ints | int
    until: Ints | int = FOREVER
    segment: Ints | int = 0
    predicts: NDArray[np.bool_] | bool = False


def assemble(text: Ints, groups: list[Columns]) -> Row:
    """The row of these groups over the uncorrupted `text` [T]; labels are in the order of the columns."""
    place = np.concatenate([group.place for group in groups])
    ids = np.concatenate([group.ids for group in groups])
    predicts = np.flatnonzero(_column([(group.predicts, len(group.ids)) for group in groups]))
    answers = place[predicts]
    return Row(
        ids=ids,
        positions=place,
        segments=_column([(group.segment, len(group.ids)) for group in groups]),
        document=np.zeros(len(ids), dtype=np.int64),
        time=_column([(group.time, len(group.ids)) for group in groups]),
        until=_column([(group.until, len(group.ids)) for group in groups]),
        labels={LANGUAGE_MODEL: Labels(predicts, text[answers], answers)},
        shows=np.where(ids == text[place], place, -1),
    )


def windowed(row: Row, window: int) -> Row:
    """The row whose tokens are readable for `window` moments only, their own included: long text in short reach."""
    return replace(row, until=np.minimum(row.until, row.time + window))


def joined(spans: list[Ints]) -> Ints:
    """The token indices of all spans, in their order."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *spans])


def ranks(spans: list[Ints]) -> Ints:
    """For every token index of `joined(spans)`, which span it belongs to."""
    return np.repeat(np.arange(len(spans)), [len(span) for span in spans])


def _column(parts: list[tuple[Ints | NDArray[np.bool_] | int, int]]) -> Ints:
    return np.concatenate([np.full(size, value, dtype=np.int64) for value, size in parts])
