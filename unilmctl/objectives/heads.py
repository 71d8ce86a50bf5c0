"""Rows with labels for a head beside, or instead of, the language model's.

| | row | head |
|---|---|---|
| `span-boundary` | cloze, whole spans masked alike | "boundary": a span's token from the two slots around the span |
| `replaced` | the generator's cloze | "replaced": every slot, was its token replaced? |
| `similar` | a pair in both directions | "contrastive": the [CLS] of a source knows that of its pair |

Shapes: T tokens of the text, N predicted ones.
"""

from dataclasses import replace

import numpy as np

from unilmctl.objectives.cloze import cloze, one_segment, two_segments
from unilmctl.objectives.corruption import DEFAULT, Corruption, choose
from unilmctl.objectives.layout import joined
from unilmctl.objectives.pairs import causal
from unilmctl.rows import Example, Frame, Ints, Labels, Row, pack

BOUNDARY, REPLACED, CONTRASTIVE = "boundary", "replaced", "contrastive"
"""The heads of the three."""

REACH = 15
"""Tokens of a span that its boundary predicts at most."""


def span_boundary(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """[CLS] text [SEP]: spans are restored in place, and again from the tokens around them. SpanBERT (1907.10529)."""
    text = one_segment(example, frame)
    spans = choose("span-boundary", text, random, corruption)
    row = cloze(text, spans, np.zeros_like(text.tokens), frame, random, replace(corruption, together=True))
    return replace(row, labels={**row.labels, BOUNDARY: boundary_labels(row, text.tokens, spans)})


def boundary_labels(row: Row, text: Ints, spans: list[Ints]) -> Labels:
    """For the first `REACH` tokens of each span: the slot before it; aside the slot after it and the offset [N, 2].

    A token that was kept has none: it stands in the row, where its boundary would read it.
    """
    reached = [span[:REACH] for span in spans]
    sizes = [len(span) for span in reached]
    before = np.repeat(joined([span[:1] for span in spans]) - 1, sizes)
    after = np.repeat(joined([span[-1:] for span in spans]) + 1, sizes)
    answers = joined(reached)
    hidden = row.shows[answers] != answers
    aside = np.stack((after, answers - before - 1), axis=1)
    return Labels(before[hidden], text[answers][hidden], answers[hidden], aside=aside[hidden])


def replaced(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """What ELECTRA's generator reads and restores, and a label 0 (original) at every slot for the discriminator.

    Which tokens are replaced is known once the generator has drawn them: the training step turns those labels to 1.
    ELECTRA masks 85 % of the chosen tokens and keeps the others: `Corruption(random=0, keep=0.15)`. arXiv 2003.10555.
    """
    text = two_segments(example, frame)
    spans = choose("replaced", text, random, corruption)
    row = cloze(text, spans, np.zeros_like(text.tokens), frame, random, corruption)
    slots = np.arange(len(row))
    return replace(row, labels={**row.labels, REPLACED: Labels(slots, np.zeros_like(slots), np.full_like(slots, -1))})


def similar(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """The causal rows of a pair in both directions, whose [CLS]s are partners. SimBERT (Su 2020).

    Partners have the same target, a random number of 62 bits: so pairs need no numbering across a batch.
    """
    there = causal(example, frame, random, corruption=corruption)
    back = causal(Example(example.target, example.source), frame, random, corruption=corruption)
    row = pack([there, back])
    pair = np.full(2, random.integers(2**62))
    return replace(row, labels={**row.labels, CONTRASTIVE: Labels(np.array([0, len(there)]), pair, np.full(2, -1))})
