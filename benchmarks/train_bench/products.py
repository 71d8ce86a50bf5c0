"""The matrix products of a step alone: each weight at every token, forward and backward; the head at labels."""

import torch

from train_bench.process import timed
from train_bench.work import FEEDFORWARD, HIDDEN, LAYERS, VOCABULARY, Done, Engine

REPEATS = 3
SHAPES = ((HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, FEEDFORWARD), (FEEDFORWARD, HIDDEN))


class Products:
    """Matrices of a precision."""

    def __init__(self, engine: Engine) -> None:
        torch.set_num_threads(engine.threads)
        self.engine, self.dtype = engine, getattr(torch, engine.precision)

    def step(self, row_tokens: int, labels: int) -> Done:
        """Best seconds of one layer's products times the layers, and of the head's."""
        layer = sum(self._seconds(row_tokens, *shape) for shape in SHAPES)
        head = self._seconds(labels, HIDDEN, VOCABULARY) + self._seconds(labels, HIDDEN, HIDDEN)
        return Done(LAYERS * layer + head, row_tokens)

    def _seconds(self, rows: int, inputs: int, outputs: int) -> float:
        values = torch.randn(rows, inputs).to(self.dtype)
        weight = torch.randn(outputs, inputs).to(self.dtype)
        gradient = torch.randn(rows, outputs).to(self.dtype)

        def work() -> None:
            torch.mm(values, weight.t())
            torch.mm(gradient, weight)
            torch.mm(gradient.t(), values)

        work()
        return min(timed(self.engine, work) for _ in range(REPEATS))
