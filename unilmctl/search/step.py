"""What a search asks of a model: a state that follows the beams, and a step.

Shapes: N sentences, B beams a sentence, R = N x B rows in sentence-major order, V vocabulary.
"""

from typing import Protocol, Self, TypeVar

from torch import Tensor


class State(Protocol):
    """What a model remembers of R rows; it is never changed in place."""

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> Self:
        """The state whose row r continues row `rows[r]` [R'] of this one.

        `sentences` [N'] names those that stay, in the numbering of this state; None: all of them.
        """


S = TypeVar("S", bound=State)


class Step(Protocol[S]):
    """`step(tokens, state)`: the tokens [R] just chosen give the next tokens' logits [R, V] and the next state."""

    def __call__(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Logits need not be normalised; the search may write into them."""
