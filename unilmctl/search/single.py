"""Searches in which every output goes its own way: greedy and sampling.

Shapes: N sentences, B outputs a sentence, T maximal length, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unilmctl.search.rules import NEVER, Prefix, Rules
from unilmctl.search.run import Choice, Task, in_order
from unilmctl.search.sampling import Sampling, draw, uniform
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import S, State, Step
from unilmctl.search.table import Table
from unilmctl.search.top import top


def greedy(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    scoring: Scoring = SUM,
    prefix: Prefix | None = None,
) -> list[list[Hypothesis]]:
    """The likeliest token at every step, one output for each of N sentences; arguments as in `beam_search`."""
    return in_order(Follow(rules, scoring), step, _tasks(list(range(len(first))), prefix), first, state)


def sample(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    sampling: Sampling,
    samples: int = 1,
    keys: list[int] | None = None,
    scoring: Scoring = SUM,
    prefix: Prefix | None = None,
) -> list[list[Hypothesis]]:
    """`samples` random outputs of each sentence, best first; `keys` name the sentences (None: by their place)."""
    tasks = _tasks(list(range(len(first))) if keys is None else keys, prefix)
    return in_order(Follow(rules, scoring, sampling, samples), step, tasks, first, state)


@dataclass(frozen=True)
class Paths(Table):
    """Outputs that go their own way: `times` and `keys` [N], what must be written [N, T], and what is.

    Totals [N, B] are what outputs are ranked by, up to their end; tokens and the model's own log-probabilities of them
    are [N, B, T]; `open` [N, B] are the outputs that have not ended and can go on.
    """

    times: Tensor
    keys: Tensor
    forced: Tensor
    totals: Tensor
    tokens: Tensor
    steps: Tensor
    open: Tensor


@dataclass(frozen=True)
class Follow:
    """The strategy of this module: the likeliest token, or with `sampling` a random one for each of the outputs."""

    rules: Rules
    scoring: Scoring = SUM
    sampling: Sampling | None = None
    outputs: int = 1

    def begin(self, tasks: Sequence[Task], device: torch.device) -> Paths:
        """Empty outputs."""
        keys = torch.tensor([task.key for task in tasks], device=device)
        steps = torch.zeros(len(tasks), self.outputs, self.rules.max_length, device=device)
        totals = steps[..., 0]
        forced = self.rules.forced([task.prefix for task in tasks], device)
        return Paths(torch.zeros_like(keys), keys, forced, totals, steps.long(), steps, totals == 0)

    def choose(self, logits: Tensor, table: Paths, state: State) -> Choice[Paths]:
        """One more token for every output; those that have ended write on to no effect."""
        scores = self.rules.scores(logits, table.tokens, table.times, table.forced)
        chosen = self._pick(scores.ranked, table)
        ranked = scores.ranked.gather(2, chosen[..., None])
        own = scores.own.gather(2, chosen[..., None])
        # An impossible output may hold a column of the logits that no token has.
        chosen = chosen.masked_fill(ranked[..., 0] == NEVER, self.rules.end)
        places = table.times[:, None, None].expand_as(own)
        totals = torch.where(table.open, table.totals + ranked[..., 0], table.totals)
        still_open = table.open & (chosen != self.rules.end)
        table = Paths(
            table.times + 1,
            table.keys,
            table.forced,
            totals,
            table.tokens.scatter(2, places, chosen[..., None]),
            table.steps.scatter(2, places, own),
            still_open,
        )
        return Choice(table, chosen, None, ~still_open.any(1))

    def results(self, table: Paths, sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence, each cut at its first end token; those the rules made impossible are dropped."""
        tokens, steps = table.tokens[sentence].tolist(), table.steps[sentence].tolist()
        found = []
        for ids, scores, total in zip(tokens, steps, table.totals[sentence].tolist(), strict=True):
            if total > NEVER:
                length = ids.index(self.rules.end) + 1
                found.append(Hypothesis(ids[: length - 1], total / self.scoring.divisor(length), scores[:length]))
        return sorted(found, key=lambda hypothesis: -hypothesis.score)

    def _pick(self, scores: Tensor, table: Paths) -> Tensor:
        """The tokens [N, B] to write, given scores [N, B, V]."""
        if self.sampling is None:
            return top(scores, 1)[1][..., 0]
        draws = uniform(self.sampling.seed, table.keys.cpu().numpy(), self.outputs, table.times.cpu().numpy())
        return draw(scores, torch.from_numpy(draws).to(scores.device), self.sampling)


def _tasks(keys: list[int], prefix: Prefix | None) -> list[Task]:
    beginnings = [[] for _ in keys] if prefix is None else prefix.lists()
    return [Task(key, beginning) for key, beginning in zip(keys, beginnings, strict=True)]
