"""Objectives: from an example to a row. None of them builds a mask: each only says when its tokens are written.

`pairs` holds the rows of fine-tuning; `cloze`, `orders` and `infilling` those of pre-training on text, `heads` those
with labels for further heads, `gaps` those that fill what is missing; `sentences` makes examples of passages, `custom`
makes objectives of what a recipe says. `corruption` says which tokens are predicted and what is put in their place,
`layout` puts columns side by side, `lengths` knows how long a row will be. All randomness comes from the generator that
the caller passes in.

An objective on text reads `Example(text, empty)`; one on two segments reads both; a text objective that is given both
joins them.
"""

from collections.abc import Callable
from functools import partial as bind

import numpy as np

from unilmctl.objectives.cloze import bidirectional, cloze, left_to_right, right_to_left, seq2seq
from unilmctl.objectives.corruption import (
    DEFAULT,
    LENGTHS,
    RATES,
    SPANS,
    Corruption,
    choose,
    corrupt,
    rate,
    select,
    words,
)
from unilmctl.objectives.custom import CustomRow, parse_row
from unilmctl.objectives.gaps import GAP_ROWS, gap_row, gaps
from unilmctl.objectives.heads import BOUNDARY, CONTRASTIVE, REACH, REPLACED, replaced, similar, span_boundary
from unilmctl.objectives.infilling import in_place_row, infilling, infilling_in_place, infilling_row
from unilmctl.objectives.layout import windowed
from unilmctl.objectives.lengths import row_length
from unilmctl.objectives.orders import (
    block_diffusion,
    block_row,
    compensated_row,
    partial,
    partial_row,
    permuted,
    permuted_compensated,
    permuted_row,
)
from unilmctl.objectives.pairs import causal, masked, next_token, pseudo
from unilmctl.objectives.sentences import CLASSES, PAIRINGS, Paired, Pairing, sentence_units, with_pair_label
from unilmctl.objectives.understanding import answer_slots, answered, labelled, labelled_length, read_row, tagged
from unilmctl.rows import Example, Frame, Row

__all__ = [
    "BOUNDARY",
    "CLASSES",
    "CONTRASTIVE",
    "DECODING",
    "DEFAULT",
    "GAP_ROWS",
    "LENGTHS",
    "OBJECTIVES",
    "PAIRINGS",
    "RATES",
    "REACH",
    "REPLACED",
    "SEGMENTS",
    "SPANS",
    "Corruption",
    "CustomRow",
    "Objective",
    "Paired",
    "Pairing",
    "answer_slots",
    "answered",
    "bidirectional",
    "block_diffusion",
    "block_row",
    "build",
    "causal",
    "choose",
    "cloze",
    "compensated_row",
    "corrupt",
    "gap_row",
    "gaps",
    "in_place_row",
    "infilling",
    "infilling_in_place",
    "infilling_row",
    "labelled",
    "labelled_length",
    "left_to_right",
    "masked",
    "next_token",
    "parse_row",
    "partial",
    "partial_row",
    "permuted",
    "permuted_compensated",
    "permuted_row",
    "pseudo",
    "rate",
    "read_row",
    "replaced",
    "right_to_left",
    "row_length",
    "select",
    "sentence_units",
    "seq2seq",
    "similar",
    "span_boundary",
    "tagged",
    "windowed",
    "with_pair_label",
    "words",
]

Objective = Callable[[Example, Frame, np.random.Generator], Row]

OBJECTIVES: dict[str, Callable[..., Row]] = {
    "pseudo": pseudo,
    "masked": masked,
    "causal": causal,
    "bidirectional": bidirectional,
    "left-to-right": left_to_right,
    "right-to-left": right_to_left,
    "seq2seq": seq2seq,
    "partial": partial,
    "permuted": permuted,
    "permuted-compensated": permuted_compensated,
    "infilling": infilling,
    "infilling-in-place": infilling_in_place,
    "block-diffusion": block_diffusion,
    "span-boundary": span_boundary,
    "replaced": replaced,
    "next-token": next_token,
    "similar": similar,
}
"""Every objective by its name."""

DECODING = {"pseudo": "mask", "masked": "mask", "causal": "next", "next-token": "next", "similar": "next"}
"""What one decoding step reads: previous token and [MASK] ("mask"), or the previous token alone ("next")."""

SEGMENTS = {"bidirectional": (0, 1), "left-to-right": (2, 2), "right-to-left": (3, 3), "seq2seq": (4, 5)}
"""Segment ids of source and target by which UniLM v1 tells its four objectives apart (six segment types)."""


def build(name: str, corruption: Corruption = DEFAULT) -> Objective:
    """The objective of that name with its rates bound; KeyError for a name that is not in `OBJECTIVES`."""
    return bind(OBJECTIVES[name], corruption=corruption)
