"""Rows that write hidden spans after the text they are missing from.

| | in the text | written after it |
|---|---|---|
| `infilling` | one [MASK] for each span | the spans in random order, each from a start symbol to an end symbol |
| `infilling-in-place` | one [MASK] for each token of one span | that span, each token predicted at the one before it |

Shapes: T tokens of the text.
"""

from dataclasses import replace

import numpy as np

from unilmctl.objectives.cloze import one_segment
from unilmctl.objectives.corruption import DEFAULT, Corruption, choose, rate
from unilmctl.objectives.layout import Columns, assemble, joined
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row
from unilmctl.visibility import FOREVER


def infilling(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """Spans of unknown length are written one by one, in random order. GLM (arXiv 2103.10360).

    GLM's sentences are the span "token" over units that are sentences (`sentences.sentence_units`), its documents the
    span "suffix".
    """
    text = one_segment(example, frame)
    return infilling_row(text.tokens, choose("infilling", text, random, corruption), frame)


def infilling_row(text: Ints, spans: list[Ints], frame: Frame) -> Row:
    """The text [T] with each span shrunk to one [MASK], then the spans in the order given.

    A span is read as [CLS] y1 ... yn, and predicted as y1 ... yn [SEP]. Its position is that of its [MASK] throughout;
    its `inner` position counts 1 to n+1, and is 0 in the text (GLM's second position table).
    """
    blank = np.zeros(len(text), dtype=bool)
    kept = np.ones(len(text), dtype=bool)
    for span in spans:
        blank[span[0]] = True
        kept[span[1:]] = False
    place = np.flatnonzero(kept)
    position = np.cumsum(kept) - 1
    inner = joined([np.arange(len(span) + 1) for span in spans])
    read = joined([np.array([-1, *span]) for span in spans])
    answers = joined([np.array([*span, len(text) + rank]) for rank, span in enumerate(spans)])
    size, count = len(place), len(inner)
    written = np.concatenate((np.where(blank, -1, np.arange(len(text)))[place], read))
    ids = np.where(written < 0, frame.start, text[written])
    ids[:size][blank[place]] = frame.mask
    starts = joined([span[:1] for span in spans])
    targets = np.append(text, np.full(len(spans), frame.separator))[answers]
    return Row(
        ids=ids,
        positions=np.concatenate((np.arange(size), np.repeat(position[starts], [len(span) + 1 for span in spans]))),
        segments=np.full(size + count, frame.source_segment),
        document=np.zeros(size + count, dtype=np.int64),
        time=np.maximum(np.arange(size + count) - (size - 1), 0),
        until=np.full(size + count, FOREVER),
        labels={LANGUAGE_MODEL: Labels(np.arange(count) + size, targets, answers)},
        shows=written,
        inner=np.concatenate((np.zeros(size, dtype=np.int64), inner + 1)),
    )


def infilling_in_place(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """One span of a share `corruption.target` of the text, hidden in place. MASS (arXiv 1905.02450).

    The span begins at the start of the text with probability 0.2, ends at its end with 0.2, and lies anywhere else.
    """
    text = one_segment(example, frame).tokens
    size = max(1, len(text) - 2)
    length = max(1, round(rate(corruption, "infilling-in-place") * size))
    draw = random.random()
    start = 0 if draw < 0.2 else size - length if draw < 0.4 else int(random.integers(size - length + 1))
    return in_place_row(text, np.arange(length) + start + 1, frame)


def in_place_row(text: Ints, span: Ints, frame: Frame, *, mask_until: int = FOREVER) -> Row:
    """The text [T] with `span` [N] masked, then the tokens before each of the span's, which predict it.

    `mask_until` says who reads the [MASK]s: everything (FOREVER), the text only (1), nothing (0): MASS' three programs
    differ in it. They are always [MASK]: a kept one would show its answer.
    """
    hidden = np.zeros(len(text), dtype=bool)
    hidden[span] = True
    before = span - 1
    context = Columns(
        np.where(hidden, frame.mask, text),
        np.arange(len(text)),
        0,
        np.where(hidden, mask_until, FOREVER),
        frame.source_segment,
    )
    row = assemble(
        text, [context, Columns(text[before], before, np.arange(len(span)) + 1, segment=frame.target_segment)]
    )
    return replace(row, labels={LANGUAGE_MODEL: Labels(np.arange(len(span)) + len(text), text[span], span)})
