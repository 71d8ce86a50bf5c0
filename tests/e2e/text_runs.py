"""Small runs of `pretrain`: text in which each word tells the next, a recipe, and what a run has logged."""

from pathlib import Path
from typing import Any

from unilmctl.commands import pretrain
from unilmctl.fitting import RunReport
from unilmctl.runs import RunFolder

RECIPE = """
run: run
seed: 3
data: {train: {files: [train.txt]}, valid: {files: [valid.txt]}}
model: {architecture: bert, layers: 2, hidden: 32, heads: 2, feedforward: 64, positions: 32}
tokens: {max_length: 24, train: {kind: wordpiece, size: 60}}
pretrain: {batch_tokens: 240, steps: 7, learning_rate: 5e-3, warmup: 2, accumulate: 2, precision: float32,
  log_every: 2, evaluate_every: 3, save_every: 3, keep_last: 2, threads: 1, mix: MIX}
"""
WORDS = ("red", "green", "blue", "one", "two", "three", "four", "old", "new", "big", "small", "cat", "dog", "bird")


def text(documents: int) -> str:
    """Documents of four sentences of five words: each word tells the next."""
    made = []
    for number in range(documents):
        for sentence in range(4):
            first = number * 5 + sentence * 3
            made.append(" ".join(WORDS[(first + place) % len(WORDS)] for place in range(5)) + "\n")
        made.append("\n")
    return "".join(made)


def prepared(folder: Path, mix: str) -> None:
    """Text to train on and to validate with, and a recipe with this mix."""
    (folder / "train.txt").write_text(text(20))
    (folder / "valid.txt").write_text(text(4))
    (folder / "recipe.yaml").write_text(RECIPE.replace("MIX", mix))


def train(*settings: str, fresh: bool = False) -> RunReport:
    return pretrain.run(recipe="recipe.yaml", settings=settings, fresh=fresh)


def entries(report: RunReport, event: str) -> list[dict[str, Any]]:
    return [entry for entry in RunFolder(report.run).read_log() if entry["event"] == event]
