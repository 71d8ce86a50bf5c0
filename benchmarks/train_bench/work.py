"""What is trained on, and by which engine: plain values, so that reading this loads no library."""

import random
from typing import NamedTuple

VOCABULARY = 30522
PAD, START, SEPARATOR, MASK = 0, 101, 102, 103
FIRST_WORD = 1000
LAYERS, HIDDEN, HEADS, FEEDFORWARD = 12, 768, 12, 3072
POOL = 2048
"""Examples of an epoch, out of which batches are made."""

Pair = tuple[list[int], list[int]]


class Lengths(NamedTuple):
    """A distribution of lengths, without special tokens: normal, cut at 1 and so that all fits the two limits.

    `max_source` and `max_target` count special tokens: [CLS] and [SEP], and [SEP].
    """

    name: str
    source: tuple[float, float]
    target: tuple[float, float]
    max_source: int
    max_target: int

    def drawn(self) -> list[tuple[int, int]]:
        """Source and target words of the examples of the pool."""
        chance = random.Random(7)

        def length(mean: float, spread: float, most: int) -> int:
            return max(1, min(most, round(chance.gauss(mean, spread))))

        return [
            (length(*self.source, self.max_source - 2), length(*self.target, self.max_target - 1)) for _ in range(POOL)
        ]

    def pairs(self) -> list[Pair]:
        """Words of the pool, the same for every engine."""
        chance = random.Random(8)

        def words(count: int) -> list[int]:
            return [chance.randrange(FIRST_WORD, VOCABULARY) for _ in range(count)]

        return [(words(source), words(target)) for source, target in self.drawn()]


LENGTHS = {
    "E2E": Lengths("E2E", (32, 9), (24, 8), 128, 96),
    "CNN/DM": Lengths("CNN/DM", (600, 200), (60, 20), 464, 48),
}
"""E2E with the limits of its recipe (tokens of a WordPiece vocabulary); articles with those of s2s-ft."""


class Engine(NamedTuple):
    """A program that trains; `way` is how ours makes batches."""

    program: str
    objective: str
    precision: str
    threads: int = 1
    way: str = "padded by length"

    @property
    def label(self) -> str:
        """As it is shown."""
        return f"{self.program}, {self.objective}, {self.precision}, {self.way}"


class Done(NamedTuple):
    """A step: seconds (of CPU; with more than one thread, of the wall), tokens of the examples, special ones included.

    `row_tokens` and `labels` are those of our rows, for the products.
    """

    seconds: float
    tokens: int
    row_tokens: int = 0
    labels: int = 0
