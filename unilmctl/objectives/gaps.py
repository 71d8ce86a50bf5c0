"""Rows that ask for the gaps of a text, as the rows of pre-training asked for what was hidden there.

A gap is a [MASK], or several side by side. Nobody knows what belongs there: wherever a row would show it, a [MASK]
stands instead, and whoever reads the row puts there what was written (`decoding.moments`).

| | a gap is predicted |
|---|---|
| `bidirectional` | in place; then the whole text is read again |
| `partial` | at [P]s; the text with all its [MASK]s is read once |

Shapes: T tokens of the text, N in its gaps.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unilmctl.objectives.corruption import Corruption
from unilmctl.objectives.layout import Columns, assemble
from unilmctl.objectives.orders import partial_row
from unilmctl.rows import LANGUAGE_MODEL, Frame, Ints, Labels, Row

MASKED = Corruption(random=0.0, keep=0.0)
"""Nothing but [MASK] stands for what is to be predicted."""


def gaps(text: Ints, frame: Frame) -> list[Ints]:
    """The gaps of a text [T], from left to right: the places of their [MASK]s."""
    places = np.flatnonzero(text == frame.mask)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []


def gap_row(name: str, text: Ints, order: list[Ints], frame: Frame) -> Row:
    """The row of objective `name` that asks for the places of `order`, those of each entry at once.

    `text` [T] has its special tokens. KeyError for an objective that is not in `GAP_ROWS`.
    """
    return GAP_ROWS[name](text, order, frame)


def _bidirectional(text: Ints, order: list[Ints], frame: Frame) -> Row:
    """One text after another, each with more of its gaps filled."""
    place = np.arange(len(text))
    return assemble(
        text,
        [
            Columns(text, place, time, time + 1, frame.source_segment, np.isin(place, some))
            for time, some in enumerate(order)
        ],
    )


def _partial(text: Ints, order: list[Ints], frame: Frame) -> Row:
    row = partial_row(text, order, frame, np.random.default_rng(0), MASKED)
    slots, targets, answers, *_ = row.labels[LANGUAGE_MODEL]
    late = row.time[slots] > 0
    return replace(row, labels={LANGUAGE_MODEL: Labels(slots[late], targets[late], answers[late])})


GAP_ROWS: dict[str, Callable[[Ints, list[Ints], Frame], Row]] = {
    "bidirectional": _bidirectional,
    "partial": _partial,
}
"""Objectives whose models fill gaps of known length."""
