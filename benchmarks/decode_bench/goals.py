"""What is compared with what, the ratios that are asked for, and the rows of the result.

Engines are compared in output tokens a CPU second (one thread) or a second (both cores); memory in GB, where the ratio
is the peer's to ours. A ratio above 1 is ours to be proud of, whatever is compared.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from beside import Row

from decode_bench.work import Engine

SOURCES, BATCHES = (128, 448), (1, 8, 32)
Cell = tuple[int, int]
"""Source tokens and sentences of a batch."""

CAUSAL, PSEUDO = Engine("unilmctl", "causal", "auto"), Engine("unilmctl", "pseudo", "auto")
CAUSAL_EXACT, PSEUDO_EXACT = Engine("unilmctl", "causal", "float32"), Engine("unilmctl", "pseudo", "float32")
TWIN = Engine("s2s-ft's way", "pseudo", "float32")
HUGGING_FACE = Engine("Hugging Face", "GPT-2", "bfloat16")
GPT_INT8, GPT_EXACT = Engine("CTranslate2", "GPT-2", "int8"), Engine("CTranslate2", "GPT-2", "float32")
DEEP_INT8 = Engine("CTranslate2", "encoder-decoder 12+12", "int8")
DEEP_EXACT = Engine("CTranslate2", "encoder-decoder 12+12", "float32")
BART_INT8 = Engine("CTranslate2", "encoder-decoder 6+6", "int8")
PACKAGES = {"Hugging Face": ("torch", "transformers"), "CTranslate2": ("torch", "transformers", "ctranslate2")}
"""What must be installed for a program; CTranslate2's models are made with the other two."""


def _even(*goals: float, longer: float = 1.0) -> dict[Cell, float]:
    """Goals by batch size; those of source 448 are `longer` times those of source 128."""
    return {
        (source, batch): round(goal * (longer if source == 448 else 1.0), 3)
        for source in SOURCES
        for batch, goal in zip(BATCHES, goals, strict=True)
    }


class Comparison(NamedTuple):
    """Ours against the fastest of some engines, on one thread, with the ratio that is asked for in each cell."""

    name: str
    ours: Engine
    peers: tuple[Engine, ...]
    goals: Mapping[Cell, float]


TWIN_GOALS = _even(8, 40, 40) | {(448, 1): 20.0, (448, 8): 120.0, (448, 32): 120.0}
ROOFLINE_GOALS = _even(0.6, 0.7, 0.7)
MIXTURE_GOAL = 1.5
MEMORY_CELL: Cell = (448, 8)

COMPARISONS = (
    Comparison("s2s-ft's way", PSEUDO, (TWIN,), TWIN_GOALS),
    Comparison("s2s-ft's way", PSEUDO_EXACT, (TWIN,), {}),
    Comparison("s2s-ft's way", CAUSAL, (TWIN,), {}),
    Comparison("Hugging Face GPT-2 bfloat16", CAUSAL, (HUGGING_FACE,), _even(3, 6, 9)),
    Comparison("Hugging Face GPT-2 bfloat16", PSEUDO, (HUGGING_FACE,), {}),
    Comparison("CTranslate2 GPT-2 best", CAUSAL, (GPT_INT8, GPT_EXACT), _even(1.6, 4.5, 14, longer=1.5)),
    Comparison("CTranslate2 GPT-2 best", PSEUDO, (GPT_INT8, GPT_EXACT), {}),
    Comparison("CTranslate2 GPT-2 float32", CAUSAL_EXACT, (GPT_EXACT,), {}),
    Comparison("CTranslate2 12+12 int8", CAUSAL, (DEEP_INT8,), _even(1.0, 1.4, 1.6)),
    Comparison("CTranslate2 12+12 int8", PSEUDO, (DEEP_INT8,), {}),
    Comparison("CTranslate2 12+12 float32", CAUSAL_EXACT, (DEEP_EXACT,), {}),
    Comparison("CTranslate2 BART size int8", CAUSAL, (BART_INT8,), _even(0.6, 1.0, 1.4)),
    Comparison("CTranslate2 BART size int8", PSEUDO, (BART_INT8,), {}),
)

MEMORY_GOALS = {HUGGING_FACE: 2.0, GPT_INT8: 2.0, GPT_EXACT: 2.0, DEEP_INT8: 1.0}
"""At source 448, batch 8: ours under half of what decoder-only peers need, and no more than an encoder-decoder."""


class Candidate(NamedTuple):
    """A way to use both cores: an engine and the batch size that it is given."""

    engine: Engine
    batch: int


def _on_both_cores(engine: Engine, *batches: int) -> tuple[Candidate, ...]:
    """As two workers of one thread, and as one worker of two threads."""
    ways = (replace(engine, workers=2), replace(engine, threads=2))
    return tuple(Candidate(way, batch) for way in ways for batch in batches)


MIXTURE_OURS = _on_both_cores(CAUSAL, 32, 64)
MIXTURE_PEERS = (
    *_on_both_cores(DEEP_INT8, 8, 32),
    *_on_both_cores(BART_INT8, 8, 32),
    *_on_both_cores(GPT_INT8, 2, 8),
    *(Candidate(replace(HUGGING_FACE, threads=2), batch) for batch in (8, 16)),
)
"""CTranslate2's two workers share the weights; transformers has no workers."""

QUICK_COMPARISONS = tuple(one._replace(peers=one.peers[:1]) for one in COMPARISONS if one.ours.dtype == "auto")
"""For more than one sentence: without float32, which is the slower format of every peer that has two."""

QUICK_MEMORY = (GPT_INT8, DEEP_INT8)
QUICK_CELLS: tuple[Cell, ...] = ((128, 1), (128, 8))
QUICK_OURS = (Candidate(replace(CAUSAL, workers=2), 24),)
QUICK_PEERS = tuple(Candidate(replace(engine, workers=2), 8) for engine in (DEEP_INT8, BART_INT8))


def row(name: str, ours: Sequence[float], peers: Sequence[Sequence[float]], goal: float | None) -> Row:
    """Medians compared: figures of ours, and those of each peer, of which the one with the highest median counts."""
    mine, best = statistics.median(ours), max(statistics.median(figures) for figures in peers)
    return {"name": name, "ours": mine, "peer": best, "ratio": mine / best, "goal": goal}


def memory_row(name: str, ours: float, peer: float, goal: float | None) -> Row:
    """GB compared: the less the better."""
    return {"name": name, "ours": ours, "peer": peer, "ratio": peer / ours, "goal": goal}
