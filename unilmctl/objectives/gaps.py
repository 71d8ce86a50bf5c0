"""Rows that ask for the gaps of a text, as the rows of pre-training asked for what was hidden there.

A gap is a [MASK], or several side by side. Nobody knows what belongs there: wherever a row would show it, a [MASK]
stands instead, and whoever reads the row puts there what was written (`decoding.moments`).

| | a gap is predicted |
|---|---|
| `bidirectional` | in place; then the whole text is read again |
| `partial` | at [P]s; the text with all its [MASK]s is read once |
| `permuted` | at queries; the text without its gaps is read once |
| `permuted-compensated` | the same, and a [MASK] is read for what is not written yet |
| `infilling-in-place` | after the text, which is read again for each gap, from left to right |
| `block-diffusion` | in copies of its block, which see the blocks before it; from left to right |

Shapes: T tokens of the text, N in its gaps.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unilmctl.objectives.corruption import Corruption
from unilmctl.objectives.infilling import in_place_row
from unilmctl.objectives.layout import Columns, assemble, joined, ranks
from unilmctl.objectives.orders import BLOCK, compensated_row, partial_row, permuted_row
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


def _permuted(text: Ints, order: list[Ints], frame: Frame) -> Row:
    return permuted_row(text, joined(order), frame, ranks(order))


def _compensated(text: Ints, order: list[Ints], frame: Frame) -> Row:
    return compensated_row(text, joined(order), frame, np.random.default_rng(0), MASKED, ranks(order))


def _in_place(text: Ints, order: list[Ints], frame: Frame) -> Row:
    """A row for each gap, one after another: what was written into one is text to the next."""
    del order  # a gap is written from left to right
    rows, begin = [], 0
    for gap in gaps(text, frame):
        row, length = in_place_row(text, gap, frame), len(gap) + 1
        rows.append(replace(row, time=row.time + begin, until=np.minimum(row.until, length) + begin))
        begin += length
    return _chained(rows)


def _block_diffusion(text: Ints, order: list[Ints], frame: Frame) -> Row:
    """Block after block: a copy for each of its places in the order, and what came of it."""
    blocks = np.split(np.arange(1, len(text)), np.arange(BLOCK, len(text) - 1, BLOCK))
    columns, time = [Columns(text[:1], np.arange(1), 0, segment=frame.source_segment)], 0
    for block in blocks:
        asked = [some for some in (np.intersect1d(some, block) for some in order) if len(some)]
        for some in asked:
            time += 1
            predicts = np.isin(block, some)
            columns.append(Columns(text[block], block, time, time + 1, frame.target_segment, predicts))
        time += 1
        columns.append(Columns(text[block], block, time, segment=frame.target_segment))
    return assemble(text, columns)


def _chained(rows: list[Row]) -> Row:
    """Rows over one text as one row of one document."""
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    labels = [row.labels[LANGUAGE_MODEL] for row in rows]
    return Row(
        ids=np.concatenate([row.ids for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        segments=np.concatenate([row.segments for row in rows]),
        document=np.concatenate([row.document for row in rows]),
        time=np.concatenate([row.time for row in rows]),
        until=np.concatenate([row.until for row in rows]),
        labels={
            LANGUAGE_MODEL: Labels(
                np.concatenate([one.slots + start for one, start in zip(labels, starts, strict=True)]),
                np.concatenate([one.targets for one in labels]),
                np.concatenate([one.answers for one in labels]),
            )
        },
        shows=np.concatenate([row.shows for row in rows]),
    )


GAP_ROWS: dict[str, Callable[[Ints, list[Ints], Frame], Row]] = {
    "bidirectional": _bidirectional,
    "partial": _partial,
    "permuted": _permuted,
    "permuted-compensated": _compensated,
    "infilling-in-place": _in_place,
    "block-diffusion": _block_diffusion,
}
"""Objectives whose models fill gaps of known length."""
