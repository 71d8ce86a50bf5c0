"""Beam search: the B likeliest unfinished outputs go on, finished ones are collected.

At each step the best continuations of a sentence are ranked. Those among the first B that end are finished; the B best
that do not end go on. So there are always B live beams. A sentence is done when no live beam can still beat its n-th
best finished output, whatever comes: log-probabilities only fall, and the divisor of the score has a largest value
between the next length and the maximal one. At the maximal length every live beam is made to end.

Beams can form groups (Vijayakumar et al. 2016, arXiv 1610.02424, with Hamming diversity). Each of the G groups is a
beam search with B / G beams, and the groups choose one after another: a token loses `diversity` for every beam of an
earlier group that goes on with it at this step. The loss steers what goes on and is not part of a score; to end
costs nothing. Every group gives its n / G best outputs (rounded up), and what two groups found is given once.

How s2s-ft differs (`reference`): there an ended beam keeps its place for one step, so that fewer outputs go on; a
repeated n-gram costs 10000 instead of being impossible; outputs that are cut at the maximal length compete without an
end token; and nothing stops before the last step.

Shapes: N sentences, B beams, G groups, b = B / G beams of a group, C candidates of a group, T = maximal length, V
vocabulary, F outputs that a group gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.search.rules import NEVER, Prefix, Rules, Scores
from unilmctl.search.run import Choice, Task, in_order
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import S, State, Step
from unilmctl.search.table import Table
from unilmctl.search.top import top


def beam_search(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    beam: int,
    nbest: int = 1,
    scoring: Scoring = SUM,
    prefix: Prefix | None = None,
    groups: int = 1,
    diversity: float = 0.0,
) -> list[list[Hypothesis]]:
    """The `nbest` best outputs of each of N sentences, best first; fewer where the rules allow no more.

    `first` [N, V] are the logits of the first token, `state` that of N rows.
    """
    beginnings = [[] for _ in first] if prefix is None else prefix.lists()
    tasks = [Task(place, beginning) for place, beginning in enumerate(beginnings)]
    return in_order(Beam(rules, beam, nbest, scoring, groups, diversity), step, tasks, first, state)


@dataclass(frozen=True)
class Live(Table):
    """Unfinished outputs: totals [N, B], tokens and the model's own log-probabilities of them [N, B, T].

    Totals are what they are ranked by, and fall within a group; -inf where there is no such output.
    """

    totals: Tensor
    tokens: Tensor
    steps: Tensor

    def histories(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities of the beams `parents` [N, X]: [N, X, T] each."""
        places = parents[..., None].expand(*parents.shape, self.tokens.shape[2])
        return self.tokens.gather(1, places), self.steps.gather(1, places)


@dataclass(frozen=True)
class Ended(Table):
    """The best finished outputs of each group, best first: scores, lengths [N, G, F], tokens, steps [N, G, F, T].

    A score of -inf is no output. Lengths count the end token.
    """

    scores: Tensor
    lengths: Tensor
    tokens: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Beams(Table):
    """All about N sentences: how much they have written [N], what they must write [N, T], and their outputs."""

    times: Tensor
    forced: Tensor
    live: Live
    ended: Ended


class Candidates(NamedTuple):
    """The best continuations, best first, all [N, G, C]: what they are ranked by (`totals`), the model's own
    log-probability of the token (`steps`), the token, and which of the sentence's beams it continues.
    """

    totals: Tensor
    steps: Tensor
    tokens: Tensor
    parents: Tensor

    def gather(self, order: Tensor) -> "Candidates":
        """Those at the places `order` [N, G, X] of their groups."""
        return Candidates(*(part.gather(-1, order) for part in self))

    def going(self, end: int, count: int) -> "Candidates":
        """The first `count` of each group that do not end."""
        ends = (self.tokens == end) & (self.totals > NEVER)
        going = self.gather(ends.sort(dim=-1, stable=True).indices[..., :count])
        # An impossible beam may hold a column of the logits that no token has.
        return going._replace(tokens=going.tokens.masked_fill(going.totals == NEVER, end))


@dataclass(frozen=True)
class Beam:
    """The strategy of this module; `beam` is a multiple of `groups`."""

    rules: Rules
    beam: int
    nbest: int = 1
    scoring: Scoring = SUM
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        assert self.beam % self.groups == 0, "groups are of one size"

    @property
    def outputs(self) -> int:
        """B, the rows that a sentence takes."""
        return self.beam

    def begin(self, tasks: Sequence[Task], device: torch.device) -> Beams:
        """One empty beam a group; the others are there, and worth nothing."""
        shape, longest = (len(tasks), self.groups, -(-self.nbest // self.groups)), self.rules.max_length
        totals = torch.full((len(tasks), self.beam), NEVER, device=device)
        totals[:, :: self.beam // self.groups] = 0.0
        steps = totals.new_zeros(len(tasks), self.beam, longest)
        best = totals.new_zeros(*shape, longest)
        times = torch.zeros(len(tasks), dtype=torch.long, device=device)
        return Beams(
            times,
            self.rules.forced([task.prefix for task in tasks], device),
            Live(totals, steps.long(), steps),
            Ended(totals.new_full(shape, NEVER), times.new_zeros(shape), best.long(), best),
        )

    def choose(self, logits: Tensor, table: Beams, state: State, extra: Tensor | None = None) -> Choice[Beams]:
        """One more token for every beam; `extra` [N, B], at most 0, is added to the scores of those that end."""
        scores = self.rules.scores(logits, table.live.tokens, table.times, table.forced)
        return self.continued(*self._candidates(scores, table.live.totals), table, extra)

    def continued(self, best: Candidates, going: Candidates, table: Beams, extra: Tensor | None) -> Choice[Beams]:
        """The beams `going` [N, G, b] go on, and those of the first b of `best` [N, G, C] that end are finished."""
        ended = self._ended(best, table, extra)
        going = Candidates(*(part.flatten(1) for part in going))  # [N, B]
        live = _continued(going, table.live, table.times)
        times = table.times + 1
        hope = live.totals.view(len(times), self.groups, -1).amax(2)
        hope = hope / self._kindest.to(hope.device)[times, None]
        done = (ended.scores[..., -1] >= hope).all(1)
        return Choice(Beams(times, table.forced, live, ended), going.tokens, going.parents, done)

    def results(self, table: Beams, sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence, best first."""
        ended: Ended = table.ended[torch.tensor(sentence, device=table.times.device)]
        scores, lengths = ended.scores.flatten().tolist(), ended.lengths.flatten().tolist()
        tokens, steps = ended.tokens.flatten(0, 1), ended.steps.flatten(0, 1)
        found: dict[tuple[int, ...], Hypothesis] = {}
        for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
            if scores[place] > NEVER:
                ids = tokens[place, : lengths[place] - 1].tolist()
                hypothesis = Hypothesis(ids, scores[place], steps[place, : lengths[place]].tolist())
                found.setdefault(tuple(ids), hypothesis)
        return list(found.values())[: self.nbest]

    @cached_property
    def _divisors(self) -> Tensor:
        """What the total of an output of each length is divided by: [T + 1]."""
        return torch.tensor([self.scoring.divisor(length) for length in range(self.rules.max_length + 1)])

    @cached_property
    def _kindest(self) -> Tensor:
        """The largest divisor that an output which has so many tokens may still get: [T + 1]."""
        longest = self.rules.max_length
        return torch.tensor([self.scoring.kindest(length + 1, longest) for length in range(longest + 1)])

    def _candidates(self, scores: Scores, totals: Tensor) -> tuple[Candidates, Candidates]:
        """The best continuations in each group, and those that go on [N, G, b]; `totals` [N, B] are so far.

        Of each beam the B + 1 best are enough: one may end, and earlier groups may speak against B - b of them.
        """
        ranked, tokens = top(scores.ranked, self.beam + 1)  # [N, B, W]
        own = ranked if scores.own is scores.ranked else scores.own.gather(2, tokens)
        parents = torch.arange(self.beam, device=tokens.device)[:, None].expand_as(tokens)
        children = (totals[..., None] + ranked, own, tokens, parents)
        grouped = Candidates(*(part.reshape(len(totals), self.groups, -1) for part in children))  # [N, G, b * W]
        taken = tokens.new_empty(len(totals), 0)
        if self.groups == 1:
            return self._best(grouped, taken)
        found = []
        for group in range(self.groups):
            best, going = self._best(Candidates(*(part[:, group : group + 1] for part in grouped)), taken)
            taken = torch.cat((taken, going.tokens[:, 0]), 1)
            found.append((best, going))
        first, second = (
            Candidates(*(torch.cat(parts, 1) for parts in zip(*groups, strict=True)))
            for groups in zip(*found, strict=True)
        )
        return first, second

    def _best(self, children: Candidates, taken: Tensor) -> tuple[Candidates, Candidates]:
        """The 2b best of one group's `children` [N, 1, X], and the b that go on, given what others took [N, Y]."""
        size, worth = self.beam // self.groups, children.totals
        if taken.shape[1]:
            times = (children.tokens[..., None] == taken[:, None, None]).sum(-1)
            worth = worth - self.diversity * times * (children.tokens != self.rules.end)
        best = children.gather(top(worth, 2 * size)[1])
        return best, best.going(self.rules.end, size)

    def _ended(self, candidates: Candidates, table: Beams, extra: Tensor | None) -> Ended:
        """With the candidates that end, are among the first b of their group, and are better than what is there."""
        old, size = table.ended, self.beam // self.groups
        first = Candidates(*(part[..., :size] for part in candidates))
        ends = first.tokens == self.rules.end
        if not ends.any():
            return old
        lengths = (table.times + 1)[:, None, None].expand_as(first.tokens)
        scores = torch.where(ends, first.totals / self._divisors.to(ends.device)[lengths], NEVER)
        if extra is not None:
            scores = scores + extra[:, None].expand(-1, self.groups, -1).gather(2, first.parents)
        new = _continued(Candidates(*(part.flatten(1) for part in first)), table.live, table.times)
        scores, order = torch.cat((old.scores, scores), 2).sort(dim=2, descending=True, stable=True)
        order = order[..., : old.scores.shape[2]]
        return Ended(
            scores[..., : old.scores.shape[2]],
            torch.cat((old.lengths, lengths), 2).gather(2, order),
            _merged(old.tokens, new.tokens, order),
            _merged(old.steps, new.steps, order),
        )


def _continued(children: Candidates, live: Live, times: Tensor) -> Live:
    """The beams with one more token, those of `children` [N, X]."""
    tokens, steps = live.histories(children.parents)
    places = times[:, None, None].expand(*children.parents.shape, 1)
    return Live(
        children.totals,
        tokens.scatter_(2, places, children.tokens[..., None]),
        steps.scatter_(2, places, children.steps[..., None]),
    )


def _merged(old: Tensor, new: Tensor, order: Tensor) -> Tensor:
    """Rows `order` [N, G, F] of both [N, G, F, T] and [N, G * b, T] together."""
    both = torch.cat((old, new.view(*order.shape[:2], -1, old.shape[3])), 2)
    return both.gather(2, order[..., None].expand(*order.shape, old.shape[3]))
