"""Sources that wait to be decoded, and who decodes them: here this process alone, in `workers` several."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple, Protocol

from unilmctl.generation.generator import Generator
from unilmctl.search import Hypothesis, Task

WINDOW = 1024
"""Most records that are read ahead for one process."""


class Work(NamedTuple):
    """One source without special tokens, and what is wished for its outputs; the task's key names it in the results."""

    task: Task
    source: list[int]


Found = list[tuple[int, list[Hypothesis]]]
"""The hypotheses of some sources, best first, by the keys of their tasks."""

Decode = Callable[[list[Work]], Iterator[Found]]
"""Decodes all of a list, in groups as they get ready."""


class Desk(Protocol):
    """Takes work in, and gives results out in the order in which they get ready."""

    @property
    def window(self) -> int:
        """Most records that are worth reading before the first of them is decoded."""

    @property
    def ahead(self) -> bool:
        """Whether it decodes while its caller does something else."""

    def submit(self, work: list[Work]) -> None:
        """Takes work in."""

    def collect(self) -> Found:
        """Some results, one at least; to be called only while there are any to come."""


class Alone:
    """A desk at which the caller itself sits: work is done when its results are collected."""

    window = WINDOW
    ahead = False

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._found: Iterator[Found] = iter(())

    def submit(self, work: list[Work]) -> None:
        """Takes work in."""
        self._found = chain(self._found, self._decode(work))

    def collect(self) -> Found:
        """The next group of results."""
        return next(self._found)


def decoder_of(generator: Generator) -> Decode:
    """How a generator decodes work."""

    def decode(work: list[Work]) -> Iterator[Found]:
        tasks = [one.task for one in work]
        batches = generator.batches(
            [one.source for one in work],
            keys=[task.key for task in tasks],
            prefixes=[task.prefix for task in tasks],
            phrases=[task.phrases for task in tasks],
        )
        for batch in batches:
            yield [(tasks[place].key, hypotheses) for place, hypotheses in batch]

    return decode
