"""The plain values of this room: what is asked for (`Options`), counted (`Measured`) and reported (`Score`).

A metric is two steps. Counting gives one row of numbers per sentence, `table` [N, S]; combining turns the sum of any
choice of rows, [S], into one figure. So a corpus score, a bootstrap interval and a paired test are the same two steps
over different sums, and no sentence is ever counted twice.

Shapes: N sentences, S numbers counted per sentence. Every figure is in per cent (0 to 100), except NIST, which is in
bits.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unilmctl.errors import DataError

Table = NDArray[np.float64]
References = list[list[str | None]]  # references[i]: those of sentence i; None is a missing one


@dataclass(frozen=True)
class Options:
    """How texts are cut into units and compared.

    `language` is a code such as "en", "zh" or "de" (see `words.unit`). `tokenize` is a sacrebleu tokenizer, or None for
    the language's own; "none" says that the text is tokens already, parted by blanks, for every metric. `smooth` is
    BLEU's smoothing. `stem` is Porter stemming in English ROUGE. `exceptions` is a folder of WordNet `.exc` files for
    rouge155.
    """

    language: str = "en"
    lowercase: bool = False
    tokenize: str | None = None
    smooth: str = "exp"
    stem: bool = True
    exceptions: Path | None = None


def no_details(total: Table) -> dict[str, float]:
    """For metrics whose figure says everything."""
    return {}


@dataclass(frozen=True)
class Measured:
    """What one metric counted: `table` [N, S], how a sum of its rows [S] becomes the figure, and under which settings.

    `resampled` is False where sentences cannot be weighed one by one (distinct-n looks at the whole output at once).
    """

    table: Table
    combine: Callable[[Table], float]
    signature: str
    details: Callable[[Table], dict[str, float]] = no_details
    resampled: bool = True

    @property
    def value(self) -> float:
        """The corpus figure."""
        return self.combine(self.table.sum(axis=0))


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of bootstrap figures, their mean, and how they were drawn."""

    low: float
    high: float
    mean: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Score:
    """One figure with everything that is needed to compare it with another one."""

    name: str
    value: float
    signature: str
    interval: Interval | None
    details: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `interval` is null where there is none."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """A paired test of two systems on the same sentences.

    `difference` is value - other; `p_value` is two-sided; both it and `interval` (of the difference) are None for a
    metric that cannot be resampled.
    """

    name: str
    value: float
    other: float
    difference: float
    p_value: float | None
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def present(references: list[str | None]) -> list[str]:
    """The references that are there."""
    return [text for text in references if text is not None]


def check(hypotheses: list[str], references: References) -> None:
    """Refuse what no metric can score; raises DataError that counts from line 1."""
    if not hypotheses:
        raise DataError("there is nothing to score: no hypotheses", "give at least one line")
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses)} hypotheses but references for {len(references)}",
            "give one list of references per hypothesis",
        )
    for line, texts in enumerate(references, start=1):
        if not present(texts):
            raise DataError(f"line {line} has no reference", "give every hypothesis at least one reference")


def sign(references: References, *settings: str) -> str:
    """A signature in sacrebleu's form: `nrefs:2|case:lc|...`; `nrefs:var` where sentences differ in number."""
    counts = {len(present(texts)) for texts in references}
    number = str(counts.pop()) if len(counts) == 1 else "var"
    return "|".join([f"nrefs:{number}", *settings])


def averaged(figures: list[float], signature: str) -> Measured:
    """The mean of one figure per sentence (already in per cent)."""
    table = np.column_stack([np.asarray(figures, dtype=np.float64), np.ones(len(figures))])
    return Measured(table, lambda total: float(total[0] / total[1]), signature)
