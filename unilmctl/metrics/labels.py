"""How good labels are: accuracy, F1, Matthews' correlation, Pearson's and Spearman's, and entities of tagged text.

A label is a line's text without the blanks around it; several references are several right answers, of which the one
given counts where it is among them, else the first. Numbers are read where a metric needs them.

Shapes: N lines, L different labels.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unilmctl.errors import DataError
from unilmctl.metrics.values import Measured, Options, References, Table, averaged, present, sign

Counts = NDArray[np.float64]


def accuracy(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """How many lines have the right label."""
    hits = [100.0 * (given == true) for given, true in _labels(hypotheses, references)]
    return averaged(hits, sign(references))


def confusion(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`f1`, `macro_f1` and `matthews`, from the table of given against true labels.

    `f1` is that of one label, as in GLUE: "1" where that is a true label, else the last of the true ones in their
    order. `macro_f1` is the mean over all labels that occur; `matthews` is R_K, which for two labels is Matthews' own
    (Gorodkin 2004).
    """
    pairs = _labels(hypotheses, references)
    order = sorted({label for pair in pairs for label in pair})
    number = {label: index for index, label in enumerate(order)}
    size = len(order)
    table = np.zeros((len(pairs), size * size), dtype=np.float64)  # [N, L * L]
    for line, (given, true) in enumerate(pairs):
        table[line, number[given] * size + number[true]] = 1
    truths = sorted({true for _, true in pairs})
    positive = "1" if "1" in truths else truths[-1]
    combine: dict[str, Callable[[Counts], float]] = {
        "f1": lambda counts: 100 * float(_f1s(counts)[number[positive]]),
        "macro_f1": lambda counts: 100 * float(_f1s(counts).mean()),
        "matthews": lambda counts: 100 * _matthews(counts),
    }
    settings = [f"labels:{size}", *([f"positive:{positive}"] if name == "f1" else [])]
    return Measured(table, lambda total: combine[name](total.reshape(size, size)), sign(references, *settings))


def _f1s(counts: Counts) -> Counts:
    """F1 of every label [L], 0 for one that is neither given nor true, from counts [given L, true L]."""
    both = counts.sum(0) + counts.sum(1)
    f1s: Counts = 2 * np.diag(counts) / np.maximum(both, 1)
    return f1s


def _matthews(counts: Counts) -> float:
    """R_K of counts [given L, true L]; 0 where all lines have one label."""
    total, right = counts.sum(), np.trace(counts)
    given, true = counts.sum(1), counts.sum(0)
    spread = (total**2 - given @ given) * (total**2 - true @ true)
    return float((right * total - given @ true) / math.sqrt(spread)) if spread > 0 else 0.0


def correlation(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`pearson` of the numbers, `spearman` of their ranks (equal numbers share the mean of theirs); in per cent.

    Ranks belong to all lines together, so Spearman's is not resampled. DataError names a line that is no number.
    """
    pairs = _labels(hypotheses, references)
    given, true = (np.array([_number(pair[side], line) for line, pair in enumerate(pairs, start=1)]) for side in (0, 1))
    if name == "spearman":
        given, true = _ranks(given), _ranks(true)
    table = np.column_stack([np.ones(len(given)), given, true, given * given, true * true, given * true])
    return Measured(table, _pearson, sign(references), resampled=name == "pearson")


def _pearson(total: Table) -> float:
    count, given, true, given2, true2, product = (float(value) for value in total)
    spread = (count * given2 - given**2) * (count * true2 - true**2)
    return 100 * (count * product - given * true) / math.sqrt(spread) if spread > 0 else 0.0


def _ranks(values: Counts) -> Counts:
    """The rank of every number, counted from 1."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray(((2 * last - count + 1) / 2)[place], dtype=np.float64)


def _number(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"line {line}: {text[:40]!r} is not a number", "pearson and spearman compare numbers")
    return value


def tags(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`tag_accuracy` over tags parted by blanks; `tag_f1`, `tag_precision`, `tag_recall` over entities (CoNLL 2000).

    An entity is right when its type, beginning and end are; tags look like B-PER, I-PER and O. Tags that were not given
    count as O. DataError names a line with more tags than its reference.
    """
    table = np.array(
        [
            _tagged(given.split(), true.split(), line)
            for line, (given, true) in enumerate(_labels(hypotheses, references), 1)
        ]
    )
    combine: dict[str, Callable[[Table], float]] = {
        "tag_accuracy": lambda total: _share(total[0], total[1]),
        "tag_precision": lambda total: _share(total[2], total[3]),
        "tag_recall": lambda total: _share(total[2], total[4]),
        "tag_f1": lambda total: _share(2 * total[2], total[3] + total[4]),
    }
    return Measured(table, combine[name], sign(references))


def _tagged(given: list[str], true: list[str], line: int) -> list[float]:
    """Right tags, all tags, right entities, given ones, true ones."""
    if len(given) > len(true):
        raise DataError(f"line {line}: {len(given)} tags for {len(true)}", "give one tag a word, parted by blanks")
    padded = given + ["O"] * (len(true) - len(given))
    found, wanted = entities(padded), entities(true)
    right = sum(one == other for one, other in zip(padded, true, strict=True))
    return [right, len(true), len(found & wanted), len(found), len(wanted)]


def entities(sequence: list[str]) -> set[tuple[str, int, int]]:
    """Type, first word and the word after the last of every entity; an I- that continues nothing begins one."""
    found, kind, start = set(), "", 0
    for place, tag in enumerate([*sequence, "O"]):
        prefix, _, label = tag.partition("-")
        outside = tag == "O"
        if kind and (outside or prefix == "B" or (label or tag) != kind):
            found.add((kind, start, place))
            kind = ""
        if not kind and not outside:
            kind, start = label or tag, place
    return found


def _share(part: float, whole: float) -> float:
    return 100 * float(part / whole) if whole else 0.0


def _labels(hypotheses: list[str], references: References) -> list[tuple[str, str]]:
    """Given and true label of every line."""
    pairs = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        given, known = hypothesis.strip(), [text.strip() for text in present(texts)]
        pairs.append((given, given if given in known else known[0]))
    return pairs
