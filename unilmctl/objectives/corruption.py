"""What happens to the tokens that a model must predict: masked, replaced by a random one, or kept.

Shapes: T tokens.
"""

from dataclasses import dataclass

import numpy as np

from unilmctl.rows import Frame, Ints


@dataclass(frozen=True)
class Corruption:
    """Rates of corruption, each a probability in [0, 1].

    `target` is the objective's own rate; None stands for its default (`TARGET_RATE`). A corrupted token is kept with
    probability `keep`, replaced by a random vocabulary entry with probability `random`, and else by [MASK]. `source` is
    the probability that a source token is corrupted though nothing is predicted there (word drop).
    """

    target: float | None = None
    random: float = 0.1
    keep: float = 0.1
    source: float = 0.0


DEFAULT = Corruption()
"""Every rate at its default."""


def corrupt(tokens: Ints, frame: Frame, random: np.random.Generator, corruption: Corruption) -> Ints:
    """Every token, [T], masked, replaced or kept (BERT's 80/10/10)."""
    draw = random.random(len(tokens))
    corrupted = np.full(len(tokens), frame.mask)
    replaced = draw < corruption.keep + corruption.random
    if replaced.any():
        corrupted[replaced] = random.integers(0, frame.vocabulary, int(replaced.sum()))
        kept = draw < corruption.keep
        corrupted[kept] = tokens[kept]
    return corrupted


def drop_words(source: Ints, frame: Frame, random: np.random.Generator, corruption: Corruption) -> Ints:
    """The source [T] with a share `corruption.source` of its tokens corrupted, its two special tokens never."""
    if corruption.source == 0:
        return source
    dropped = np.where(
        random.random(len(source)) < corruption.source, corrupt(source, frame, random, corruption), source
    )
    special = (source == frame.start) | (source == frame.separator)
    return np.where(special, source, dropped)
