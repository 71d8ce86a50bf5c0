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

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unilmctl.objectives.corruption import DEFAULT, Corruption, Text, choose, corrupt
from unilmctl.objectives.layout import joined, ranks
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row
from unilmctl.visibility import FOREVER


def bidirectional(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP], or [CLS] A [SEP] B [SEP]: everything reads everything. BERT (arXiv 1810.04805)."""
    text = two_segments(example, frame)
    spans = choose("bidirectional", text, random, corruption)
    return cloze(text, spans, np.zeros_like(text.tokens), frame, random, corruption)


def left_to_right(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP] in one segment: a masked token reads what is left of it. UniLM v1."""
    text = one_segment(example, frame)
    spans = choose("left-to-right", text, random, corruption)
    return cloze(text, spans, np.arange(len(text.tokens)), frame, random, corruption)


def right_to_left(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] A [SEP] in one segment: a masked token reads what is right of it. UniLM v1."""
    text = one_segment(example, frame)
    spans = choose("right-to-left", text, random, corruption)
    return cloze(text, spans, len(text.tokens) - 1 - np.arange(len(text.tokens)), frame, random, corruption)


def seq2seq(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """[CLS] A [SEP] B [SEP], masks in both: B reads A and what is left of it, A reads A. UniLM v1."""
    text = two_segments(example, frame)
    text.free[-1] = True
    spans = choose("seq2seq", text, random, corruption)
    time = np.maximum(np.arange(len(text.tokens)) - (text.first - 1), 0)
    return cloze(text, spans, time, frame, random, corruption)


def cloze(
    text: Text, spans: list[Ints], time: Ints, frame: Frame, random: np.random.Generator, corruption: Corruption
) -> Row:
    """The row of a text of T tokens, written at `time` [T], with `spans` corrupted and predicted in place."""
    tokens, picks = text.tokens, joined(spans)
    index = np.arange(len(tokens))
    ids = tokens.copy()
    ids[picks] = corrupt(tokens[picks], frame, random, corruption, ranks(spans))
    return Row(
        ids=ids,
        positions=index,
        segments=np.where(index < text.first, frame.source_segment, frame.target_segment),
        document=np.zeros(len(tokens), dtype=np.int64),
        time=time,
        until=np.full(len(tokens), FOREVER),
        labels={LANGUAGE_MODEL: Labels(picks, tokens[picks], picks)},
        shows=np.where(ids == tokens, index, -1),
    )


def one_segment(example: Example, frame: Frame) -> Text:
    """[CLS] text [SEP] of source and target as one text."""
    return _framed(example, frame, lambda part, around: around.source(np.concatenate((part.source, part.target))))


def two_segments(example: Example, frame: Frame) -> Text:
    """[CLS] source [SEP] target [SEP], without the second half where the target is empty."""
    return _framed(example, frame, _two)._replace(first=len(frame.source(example.source)))


def _two(example: Example, frame: Frame) -> Ints:
    source = frame.source(example.source)
    return np.concatenate((source, frame.target(example.target))) if len(example.target) else source


def _framed(example: Example, frame: Frame, lay: Callable[[Example, Frame], Ints]) -> Text:
    """The example laid out between special tokens, its units likewise: a special token is a unit of its own."""
    tokens = lay(example, frame)
    free = (tokens != frame.start) & (tokens != frame.separator)
    given = _units(example)
    units = None if given is None else lay(given, replace(frame, start=-1, separator=-2))
    return Text(tokens, free, units, len(tokens))


def _units(example: Example) -> Example | None:
    """The unit of each token in the place of that token; without units on one side, its tokens are units."""
    if example.source_units is None and example.target_units is None:
        return None
    source, target = (
        np.arange(len(tokens)) if units is None else np.asarray(units, dtype=np.int64)
        for tokens, units in ((example.source, example.source_units), (example.target, example.target_units))
    )
    return Example(source, target + source.max(initial=-1) + 1)
