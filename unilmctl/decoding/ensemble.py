"""Several models that write one output: each reads it in its own way, and their probabilities are averaged.

Shapes: N sentences, R rows, V vocabulary.
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.decoding.stepping import Decoder, Written
from unilmctl.rows import Ints

S = TypeVar("S")


class Reader(Protocol[S]):
    """One model or several, as searches see them."""

    def start(self, sources: list[Ints]) -> tuple[Tensor, S]:
        """Sources without special tokens give the logits [N, V] of the first target token, and the state."""

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """The tokens [R] just chosen give the next tokens' logits [R, V] and the state after them."""


@dataclass
class Together:
    """What each model remembers of R rows; what a search looks at beside scores is the first one's.

    Whoever calls a method gives the old state up.
    """

    states: list[Written]

    @property
    def hidden(self) -> Tensor:
        """The first model's last hidden states."""
        return self.states[0].hidden

    @property
    def attention(self) -> Tensor | None:
        """The first model's attention."""
        return self.states[0].attention

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Together":
        """Row r continues row `rows[r]` [R']; only `sentences` [N'] stay, in that order (None: all)."""
        return Together([state.reordered(rows, sentences) for state in self.states])

    def joined(self, other: "Together") -> "Together":
        """With the sentences of `other`, which have as many rows each, after those of this state."""
        return Together([one.joined(two) for one, two in zip(self.states, other.states, strict=True)])


@dataclass(frozen=True)
class Ensemble:
    """Decoders of one vocabulary in the place of one decoder."""

    decoders: tuple[Decoder, ...]

    def start(self, sources: list[Ints]) -> tuple[Tensor, Together]:
        """Sources without special tokens give the log-probabilities [N, V] of the first target token, and the state."""
        begun = [decoder.start(sources) for decoder in self.decoders]
        return self._mean([logits for logits, _ in begun]), Together([state for _, state in begun])

    def step(self, tokens: Tensor, state: Together) -> tuple[Tensor, Together]:
        """The tokens [R] just chosen give the next tokens' log-probabilities [R, V] and the state after them."""
        read = [decoder.step(tokens, one) for decoder, one in zip(self.decoders, state.states, strict=True)]
        return self._mean([logits for logits, _ in read]), Together([one for _, one in read])

    def _mean(self, logits: list[Tensor]) -> Tensor:
        """The logarithm of the mean of the probabilities; tokens that not all models have are impossible."""
        shared = min(decoder.frame.vocabulary for decoder in self.decoders)
        scores = reduce(torch.logaddexp, [one[:, :shared].log_softmax(1) for one in logits]) - math.log(len(logits))
        return functional.pad(scores, (0, logits[0].shape[1] - shared), value=-math.inf)
