"""What is decoded, and by which engine: plain values, so that reading this loads no library."""

import random
from dataclasses import dataclass

VOCABULARY = 30522
FIRST_WORD, LAST_WORD = 10, 30_000
"""Words that sources are made of: special tokens have other numbers in every engine."""


@dataclass(frozen=True)
class Work:
    """Sentences of these source lengths, special tokens counted, `batch` at a time; `tokens` are written for each.

    `scored`: whether scores are asked for, where that costs time. `changed` replaces one word of every source, counted
    from its beginning: an engine that does not read it gives the same score.
    """

    lengths: tuple[int, ...]
    batch: int
    tokens: int = 32
    beam: int = 5
    scored: bool = False
    changed: int | None = None

    @staticmethod
    def even(source: int, batch: int, tokens: int = 32) -> "Work":
        """One batch of equally long sources."""
        return Work((source,) * batch, batch, tokens)

    @staticmethod
    def mixed(sentences: int, batch: int, tokens: int = 32) -> "Work":
        """Lengths between 16 and 448, half of them below 90, longest first so that batches are of similar length."""
        drawn = random.Random(sentences)
        lengths = [min(448, max(16, round(drawn.lognormvariate(4.5, 0.7)))) for _ in range(sentences)]
        return Work(tuple(sorted(lengths, reverse=True)), batch, tokens)

    def sources(self) -> list[list[int]]:
        """Word ids without special tokens, two fewer than the lengths: the same for every engine."""
        drawn = random.Random(len(self.lengths) + self.lengths[0])
        words = [[drawn.randrange(FIRST_WORD, LAST_WORD) for _ in range(length - 2)] for length in self.lengths]
        if self.changed is not None:
            for sentence in words:
                sentence[self.changed] = FIRST_WORD + sentence[self.changed] % 5
        return words

    def batches(self) -> list[list[list[int]]]:
        """The sources, `batch` at a time."""
        sources = self.sources()
        return [sources[start : start + self.batch] for start in range(0, len(sources), self.batch)]


@dataclass(frozen=True)
class Engine:
    """A program, a model that it decodes with, a number format, and how it uses the machine."""

    program: str
    model: str
    dtype: str
    threads: int = 1
    workers: int = 1

    @property
    def label(self) -> str:
        """As tables name it."""
        many = f" x{self.workers}" if self.workers > 1 else ""
        return f"{self.program} {self.model} {self.dtype}{many}"


@dataclass(frozen=True)
class Output:
    """What an engine wrote for one sentence: all tokens, the end included where it was written, and the score.

    The score is 0 where it was not asked for.
    """

    ids: list[int]
    score: float
