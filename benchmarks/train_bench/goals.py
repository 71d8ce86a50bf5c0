"""What is compared with what, the ratios that are asked for, and the rows of the result."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from beside import Row

from train_bench.work import Engine

PRECISIONS = ("float32", "bfloat16")
TWIN_GOALS = {
    ("E2E", "float32"): 3.0,
    ("E2E", "bfloat16"): 15.0,
    ("CNN/DM", "float32"): 1.8,
    ("CNN/DM", "bfloat16"): 9.0,
}
HUGGING_FACE_GOAL = 1.5
PRODUCT_GOALS = {"float32": 0.7, "bfloat16": 0.5}
WAYS = ("padded to the batch", "padded to the maximum", "packed")
"""Ways that are compared with batches of like length, for information."""


class Comparison(NamedTuple):
    """Ours against an engine, in tokens of the examples a second."""

    name: str
    ours: Engine
    peer: Engine
    goal: float | None


def comparisons(lengths: str, threads: int, *, ways: bool) -> list[Comparison]:
    """All comparisons on one distribution of lengths; with `ways` those of our own ways to make batches too."""
    found = []
    where = f"{lengths} lengths, {threads} thread{'s' * (threads > 1)}"
    for precision in PRECISIONS:
        pseudo, causal = (Engine("unilmctl", objective, precision, threads) for objective in ("pseudo", "causal"))
        twin = Engine("s2s-ft's way", "pseudo", "float32", threads)
        face = Engine("Hugging Face", "causal", precision, threads)
        products = Engine("products", "pseudo", precision, threads)
        found += [
            Comparison(f"s2s-ft's way, {where}: ours pseudo {precision}", pseudo, twin, TWIN_GOALS[lengths, precision]),
            Comparison(f"BertLMHeadModel {precision}, {where}: ours causal", causal, face, HUGGING_FACE_GOAL),
            Comparison(
                f"bare matrix products {precision}, {where}: ours pseudo", pseudo, products, PRODUCT_GOALS[precision]
            ),
        ]
        if ways:
            for way in WAYS:
                name = f"ours {way}, {where}: ours pseudo {precision}"
                found.append(Comparison(name, pseudo, pseudo._replace(way=way), None))
    return found


def row(comparison: Comparison, ours: Sequence[float], peer: Sequence[float]) -> Row:
    """Medians compared."""
    mine, other = statistics.median(ours), statistics.median(peer)
    return {"name": comparison.name, "ours": mine, "peer": other, "ratio": mine / other, "goal": comparison.goal}
