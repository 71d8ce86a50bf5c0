"""Cloze rows: tokens are masked in place and predicted there. Only the order of writing differs.

| | token i of n is written at |
|---|---|
| `bidirectional` | 0 |
| `left-to-right` | i |
| `right-to-left` | n-1-i |
| `seq2seq` | 0 in the first segment, 1, 2, ... in the second |

UniLM v1 (arXiv 1905.03197) mixes them 1/3, 1/6, 1/6, 1/3; BERT, RoBERTa, ALBERT, SpanBERT and ERNIE are `bidirectional`
with other spans and units. [CLS] and inner [SEP]s are never masked; the last [SEP] of `seq2seq` may be: so it learns to
stop.

Shapes: T tokens.
"""

import numpy as np
from numpy.typing import NDArray

from unilmctl.objectives.corruption import DEFAULT, Corruption, choose, corrupt
from unilmctl.objectives.layout import joined
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row
from unilmctl.visibility import FOREVER


def bidirectional(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP], or [CLS] A [SEP] B [SEP]: everything reads everything. BERT (arXiv 1810.04805)."""
    tokens, first = two_segments(example, frame)
    free = (tokens != frame.start) & (tokens != frame.separator)
    picks = joined(choose("bidirectional", tokens, free, random, corruption))
    return cloze(tokens, picks, np.zeros_like(tokens), _halves(tokens, first, frame), frame, random, corruption)


def left_to_right(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP] in one segment: a masked token reads what is left of it. UniLM v1."""
    tokens, free = one_segment(example, frame)
    picks = joined(choose("left-to-right", tokens, free, random, corruption))
    time = np.arange(len(tokens))
    return cloze(tokens, picks, time, np.full_like(tokens, frame.source_segment), frame, random, corruption)


def right_to_left(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP] in one segment: a masked token reads what is right of it. UniLM v1."""
    tokens, free = one_segment(example, frame)
    picks = joined(choose("right-to-left", tokens, free, random, corruption))
    time = len(tokens) - 1 - np.arange(len(tokens))
    return cloze(tokens, picks, time, np.full_like(tokens, frame.source_segment), frame, random, corruption)


def seq2seq(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """[CLS] A [SEP] B [SEP], masks in both: B reads A and what is left of it, A reads A. UniLM v1."""
    tokens, first = two_segments(example, frame)
    free = (tokens != frame.start) & (tokens != frame.separator)
    free[-1] = True
    picks = joined(choose("seq2seq", tokens, free, random, corruption))
    time = np.maximum(np.arange(len(tokens)) - (first - 1), 0)
    return cloze(tokens, picks, time, _halves(tokens, first, frame), frame, random, corruption)


def cloze(
    tokens: Ints,
    picks: Ints,
    time: Ints,
    segments: Ints,
    frame: Frame,
    random: np.random.Generator,
    corruption: Corruption,
) -> Row:
    """The row of `tokens` [T] with `picks` [N] corrupted and predicted in place, written at `time` [T]."""
    index = np.arange(len(tokens))
    ids = tokens.copy()
    ids[picks] = corrupt(tokens[picks], frame, random, corruption)
    return Row(
        ids=ids,
        positions=index,
        segments=segments,
        document=np.zeros(len(tokens), dtype=np.int64),
        time=time,
        until=np.full(len(tokens), FOREVER),
        labels={LANGUAGE_MODEL: Labels(picks, tokens[picks], picks)},
        shows=np.where(ids == tokens, index, -1),
    )


def one_segment(example: Example, frame: Frame) -> tuple[Ints, NDArray[np.bool_]]:
    """[CLS] text [SEP] of source and target as one text, and which of its tokens may be chosen."""
    tokens = frame.source(np.concatenate((example.source, example.target)))
    return tokens, (tokens != frame.start) & (tokens != frame.separator)


def two_segments(example: Example, frame: Frame) -> tuple[Ints, int]:
    """[CLS] source [SEP] target [SEP], without the second half where the target is empty; and the size of the first."""
    source = frame.source(example.source)
    if len(example.target) == 0:
        return source, len(source)
    return np.concatenate((source, frame.target(example.target))), len(source)


def _halves(tokens: Ints, first: int, frame: Frame) -> Ints:
    return np.repeat([frame.source_segment, frame.target_segment], [first, len(tokens) - first])
