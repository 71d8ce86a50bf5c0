"""What a hypothesis is worth.

Shapes: none; a length counts the end token.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Hypothesis(NamedTuple):
    """One output: `ids` without the end token, `score`, which outputs were ranked by.

    `token_scores` are the model's own log-probabilities of the ids and, unless the output was cut off, of the end token
    after them. The score is their sum after length normalisation, with the repetition and coverage penalties that were
    asked for. `alignment`, for those who ask: the place of the source's word that each of the ids looks at most.
    """

    ids: list[int]
    score: float
    token_scores: list[float]
    alignment: list[int | None] | None = None


@dataclass(frozen=True)
class Scoring:
    """How a sum of log-probabilities becomes a score: divided by a function of the length.

    `penalty`: ((5 + n) / 6)^a (Wu et al. 2016, arXiv 1609.08144, section 7, as every UniLM decoder has it); `average`:
    n; `none`: 1.
    """

    penalty: float = 0.0
    normalization: Literal["penalty", "average", "none"] = "penalty"

    def divisor(self, length: int) -> float:
        """What the sum is divided by for an output of `length` tokens, the end token counted."""
        if self.normalization == "average":
            return float(max(length, 1))
        if self.normalization == "none" or self.penalty == 0:
            return 1.0
        return float(((5.0 + length) / 6.0) ** self.penalty)

    def kindest(self, shortest: int, longest: int) -> float:
        """The largest divisor of any length in between: what an unfinished hypothesis may still hope for."""
        return max(self.divisor(shortest), self.divisor(longest))


SUM = Scoring()
"""The plain sum of log-probabilities."""
