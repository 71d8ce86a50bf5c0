"""What a search asks of a model: a state that follows the outputs, and a step.

Shapes: N sentences, B outputs a sentence, R = N x B rows in sentence-major order, V vocabulary.
"""

from typing import Protocol, Self, TypeVar

from torch import Tensor


class State(Protocol):
    """What a model remembers of R rows. Whoever calls a method gives the state up: it may be changed in place.

    A decoder that is asked for them adds two attributes: `hidden` [R, D], the last hidden state where the next token
    is predicted, and `attention` [R, S], the weights there on the source in the last layer, mean of the heads.
    """

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> Self:
        """The state whose row r continues row `rows[r]` [R'] of this one, a row of the same sentence.

        `sentences` [N'] names those that stay, in the new order and the numbering of this state; None: all of them.
        """

    def joined(self, other: Self) -> Self:
        """With the sentences of `other`, which has as many rows for each, after those of this one."""


S = TypeVar("S", bound=State)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)


class Step(Protocol[S]):
    """`step(tokens, state)`: the tokens [R] just chosen give the next tokens' logits [R, V] and the next state."""

    def __call__(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Logits need not be normalised; they may be -inf; the search may write into them."""
