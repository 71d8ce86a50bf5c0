"""A penalty for what an output leaves out of its source (Wu et al. 2016, arXiv 1609.08144, section 7).

A word of the source is covered by the sum of the attention that the output's tokens pay it, the end counted. To the
score of a finished output comes

    penalty * sum over the words of log(min(coverage, 1))

which is never above 0, so that a search may stop as early as without it.

Shapes: N sentences, B beams, R = N x B rows, S words of a source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.search.run import Choice, Strategy, Task
from unilmctl.search.scoring import Hypothesis
from unilmctl.search.step import State
from unilmctl.search.table import Table, TableT


class Rewarding(Strategy[TableT, State], Protocol[TableT]):
    """A strategy that adds something to the scores of outputs that end."""

    def choose(self, logits: Tensor, table: TableT, state: State, extra: Tensor | None = None) -> Choice[TableT]:
        """As in `Strategy`; `extra` [N, B] is for those that end after each beam."""


@dataclass(frozen=True)
class Covered(Table, Generic[TableT]):
    """What a strategy remembers, and the coverage [N, B, S] of the words; NaN where a source has none."""

    inner: TableT
    coverage: Tensor

    def joined(self, other: "Covered[TableT]") -> "Covered[TableT]":
        """With the sentences of `other` after those of this one."""
        width = max(self.coverage.shape[2], other.coverage.shape[2])
        both = [_widened(table.coverage, width, 0.0) for table in (self, other)]
        return Covered(self.inner.joined(other.inner), torch.cat(both))


@dataclass(frozen=True)
class Covering(Generic[TableT]):
    """A strategy, with the penalty.

    `attention` gives the weights [R, S] of the step that led to a state: the shares of the words, NaN where a source
    has none.
    """

    inner: Rewarding[TableT]
    penalty: float
    attention: Callable[[Any], Tensor]

    @property
    def outputs(self) -> int:
        """B, the rows that a sentence takes."""
        return self.inner.outputs

    def begin(self, tasks: Sequence[Task], device: torch.device) -> Covered[TableT]:
        """Nothing is covered."""
        return Covered(self.inner.begin(tasks, device), torch.zeros(len(tasks), self.outputs, 0, device=device))

    def choose(self, logits: Tensor, table: Covered[TableT], state: State) -> Choice[Covered[TableT]]:
        """One more token for every beam."""
        weights = self.attention(state).view(*table.coverage.shape[:2], -1)
        width = max(weights.shape[2], table.coverage.shape[2])
        coverage = _widened(table.coverage, width, 0.0) + _widened(weights, width, torch.nan)
        tiny = torch.finfo(coverage.dtype).tiny
        extra = self.penalty * coverage.clamp(tiny, 1).log().nansum(2)
        inner, tokens, parents, done = self.inner.choose(logits, table.inner, state, extra)
        assert parents is not None, "beams have parents"
        coverage = coverage.gather(1, parents[..., None].expand(*parents.shape, width))
        return Choice(Covered(inner, coverage), tokens, parents, done)

    def results(self, table: Covered[TableT], sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence, best first."""
        return self.inner.results(table.inner, sentence)


def _widened(values: Tensor, width: int, value: float) -> Tensor:
    """[N, B, S] with `value` behind, up to S = width."""
    return functional.pad(values, (0, width - values.shape[2]), value=value)
