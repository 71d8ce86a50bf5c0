"""Objectives: from an example to a row. None of them builds a mask: each only says when its tokens are written.

`pairs` holds the rows of fine-tuning, `corruption` what happens to predicted tokens. All randomness comes from the
generator that the caller passes in.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from unilmctl.objectives.corruption import DEFAULT, Corruption, corrupt
from unilmctl.objectives.pairs import causal, masked, pseudo
from unilmctl.rows import Example, Frame, Ints, Row

__all__ = [
    "DECODING",
    "OBJECTIVES",
    "Corruption",
    "Objective",
    "build",
    "causal",
    "corrupt",
    "masked",
    "pseudo",
    "row_length",
]

Objective = Callable[[Example, Frame, np.random.Generator], Row]

OBJECTIVES: dict[str, Callable[..., Row]] = {"pseudo": pseudo, "masked": masked, "causal": causal}
"""Every objective by its name."""

DECODING = {"pseudo": "mask", "masked": "mask", "causal": "next"}
"""What one decoding step reads: previous token and [MASK] ("mask"), or the previous token alone ("next")."""


def build(name: str, corruption: Corruption = DEFAULT) -> Objective:
    """The objective of that name with its rates bound; KeyError for a name that is not in `OBJECTIVES`."""
    return partial(OBJECTIVES[name], corruption=corruption)


def row_length(name: str, source_lengths: Ints, target_lengths: Ints, frame: Frame) -> Ints:
    """How many tokens the row of each example has, special tokens and cuts counted: from [N] and [N], [N]."""
    source: Ints = np.minimum(source_lengths + 2, frame.max_source)
    target: Ints = np.minimum(target_lengths + 1, frame.max_target)
    if name == "pseudo":
        return source + 2 * target
    if name == "causal":
        if frame.separator_in == "target":
            source = np.minimum(source_lengths + 1, frame.max_source) + 1
        return source + target - 1
    return source + target
