"""Beam search for outputs that hold given phrases.

An output may end when all phrases of its sentence are in it, wherever and in whatever order. Left to themselves, beams
that have written a part of them would lose against those that have not, because phrases are unlikely. So outputs are
compared with their like: those that have as many tokens of the phrases form a bank, and the best of every bank go on
before the second best of any (dynamic beam allocation: Post & Vilar 2018, arXiv 1804.06609; all sentences at a time, as
Hu et al. 2019, NAACL). The tokens that carry a phrase on are candidates, however unlikely.

A phrase counts as far as its beginning is the end of what is written, and for good once it is whole, in any of its
spellings; two phrases may overlap. Beams for which the room is enough to write all that is missing, side by side, come
before the others, so that a sentence whose phrases fit has an output unless the rules forbid it.

Shapes: N sentences, B beams, P phrases in A spellings of L tokens, X candidates, T maximal length, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.search.beam import Beam, Beams, Candidates
from unilmctl.search.rules import FREE, NEVER, Scores, last_tokens
from unilmctl.search.run import Choice, Phrase, Task
from unilmctl.search.scoring import Hypothesis
from unilmctl.search.step import State
from unilmctl.search.table import Table
from unilmctl.search.top import top


@dataclass(frozen=True)
class Wanted(Table):
    """Phrases [N, P, A, L], FREE after their ends, their lengths [N, P, A], and which the beams hold: [N, B, P].

    A spelling of length 0 is none; a phrase without spellings is none, and everything holds it.
    """

    phrases: Tensor
    lengths: Tensor
    met: Tensor

    def joined(self, other: "Wanted") -> "Wanted":
        """With the sentences of `other` after those of this one."""
        shape = [max(sizes) for sizes in zip(self.phrases.shape[1:], other.phrases.shape[1:], strict=True)]
        both = zip(*(one.widened(*shape) for one in (self, other)), strict=True)
        return Wanted(*(torch.cat(parts) for parts in both))

    def widened(self, count: int, spellings: int, longest: int) -> tuple[Tensor, Tensor, Tensor]:
        """All parts with room for so many phrases in so many spellings of so many tokens."""
        _, here, ways, width = self.phrases.shape
        more = (0, spellings - ways, 0, count - here)
        phrases = functional.pad(self.phrases, (0, longest - width, *more), value=FREE)
        return phrases, functional.pad(self.lengths, more), functional.pad(self.met, (0, count - here), value=True)


@dataclass(frozen=True)
class Wishes(Table):
    """The beams of N sentences, and what these must hold."""

    beams: Beams
    wanted: Wanted


class Progress(NamedTuple):
    """How far X outputs of each sentence are, all [N, X] or `met` [N, X, P].

    `met`: whether they hold each phrase. `bank` counts the phrase tokens that they have, `missing` those that are
    enough to have all.
    """

    met: Tensor
    bank: Tensor
    missing: Tensor


@dataclass(frozen=True)
class Constrained:
    """The strategy of this module, for a `beam` of one group; a sentence without phrases gets what that gives it."""

    beam: Beam

    def __post_init__(self) -> None:
        assert self.beam.groups == 1, "banks and groups exclude each other"

    @property
    def outputs(self) -> int:
        """B, the rows that a sentence takes."""
        return self.beam.outputs

    def begin(self, tasks: Sequence[Task], device: torch.device) -> Wishes:
        """Beams that hold no phrase yet."""
        wanted = [distinct(task.phrases) for task in tasks]
        count = max(1, *map(len, wanted))
        ways = max((len(phrase) for phrases in wanted for phrase in phrases), default=1)
        longest = max((len(one) for phrases in wanted for phrase in phrases for one in phrase), default=1)
        rows = [
            [_padded([_padded(one, longest, FREE) for one in phrase], ways, [FREE] * longest) for phrase in some]
            for some in (_padded(phrases, count, ()) for phrases in wanted)
        ]
        phrases = torch.tensor(rows, dtype=torch.long, device=device)
        lengths = (phrases != FREE).sum(3)
        met = (lengths == 0).all(2)[:, None].expand(-1, self.outputs, -1)
        return Wishes(self.beam.begin(tasks, device), Wanted(phrases, lengths, met))

    def choose(self, logits: Tensor, table: Wishes, state: State, extra: Tensor | None = None) -> Choice[Wishes]:
        """One more token for every beam; `extra` as in `Beam`."""
        beams, wanted, rules = table.beams, table.wanted, self.beam.rules
        scores = rules.scores(logits, beams.live.tokens, beams.times, beams.forced)
        scores.ranked[..., rules.end].masked_fill_(~wanted.met.all(2), NEVER)
        last = last_tokens(beams.live.tokens, beams.times, wanted.phrases.shape[3])
        children = self._children(scores, beams.live.totals, wanted, last)
        order = _order(children.totals, _after(children, wanted, last), rules.max_length - 2 - beams.times)
        best = children.gather(order[:, : 2 * self.outputs])
        going = best.going(rules.end, self.outputs)
        met = _after(going, wanted, last).met
        written, tokens, parents, done = self.beam.continued(_grouped(best), _grouped(going), beams, extra)
        return Choice(Wishes(written, Wanted(wanted.phrases, wanted.lengths, met)), tokens, parents, done)

    def results(self, table: Wishes, sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence, best first."""
        return self.beam.results(table.beams, sentence)

    def _children(self, scores: Scores, totals: Tensor, wanted: Wanted, last: Tensor) -> Candidates:
        """The best continuations of every beam, and those that carry a phrase on: [N, X] in all."""
        tokens = top(scores.ranked, self.outputs + 1)[1]  # [N, B, W]
        following = _next(wanted.phrases, _begun(wanted.phrases, last)).masked_fill(wanted.met[..., None], FREE)
        following = following.flatten(2)  # [N, B, P * A]
        known = (following[..., None] == tokens[:, :, None]).any(3)
        twice = (following[..., None] == following[:, :, None]).tril(-1).any(3)
        useful = ~(known | twice | (following == FREE))
        tokens = torch.cat((tokens, following.clamp(min=0)), 2)  # [N, B, W + P * A]
        offered = functional.pad(useful, (tokens.shape[2] - useful.shape[2], 0), value=True)
        ranked = scores.ranked.gather(2, tokens).masked_fill(~offered, NEVER)
        parents = torch.arange(self.outputs, device=tokens.device)[:, None].expand_as(tokens)
        children = (totals[..., None] + ranked, scores.own.gather(2, tokens), tokens, parents)
        return Candidates(*(part.flatten(1) for part in children))


def distinct(phrases: Sequence[Phrase]) -> list[Phrase]:
    """The phrases without those that others hold, however these are spelt."""
    found: list[Phrase] = []
    for phrase in sorted(phrases, key=lambda phrase: (min(map(len, phrase)), max(map(len, phrase))), reverse=True):
        if not any(all(holds(spelling, phrase) for spelling in other) for other in found):
            found.append(phrase)
    return found


def holds(tokens: Sequence[int], phrase: Phrase) -> bool:
    """Whether a phrase stands somewhere in the tokens, in any spelling."""
    return any(
        tuple(tokens[place : place + len(spelling)]) == tuple(spelling)
        for spelling in phrase
        for place in range(len(tokens) - len(spelling) + 1)
    )


EntryT = TypeVar("EntryT")


def _padded(entries: Sequence[EntryT], count: int, entry: EntryT) -> list[EntryT]:
    return [*entries, *[entry] * (count - len(entries))]


def _after(children: Candidates, wanted: Wanted, last: Tensor) -> Progress:
    """How far `children` [N, X] are, given the last L tokens [N, B, L] of the beams that they continue."""
    last = torch.cat((_of(last, children.parents)[..., 1:], children.tokens[..., None]), 2)
    begun, lengths = _begun(wanted.phrases, last), wanted.lengths[:, None]  # [N, X, P, A], [N, 1, P, A]
    absent = lengths == 0
    met = _of(wanted.met, children.parents) | ((begun == lengths) & ~absent).any(3)
    bank = torch.where(met, lengths.amax(3), begun.amax(3)).sum(2)
    far = 1 + wanted.phrases.shape[3]
    shortest = lengths.masked_fill(absent, far).amin(3)
    saved = shortest - (lengths - begun).masked_fill(absent, far).amin(3)
    missing = shortest.masked_fill(met, 0).sum(2) - saved.masked_fill(met, 0).amax(2).clamp(min=0)
    return Progress(met, bank, missing)


def _begun(phrases: Tensor, last: Tensor) -> Tensor:
    """How many tokens of each spelling, from its first, are the end of `last` [N, X, L]: [N, X, P, A]."""
    longest, spellings = last.shape[2], phrases.flatten(1, 2)
    found = torch.zeros(*last.shape[:2], spellings.shape[1], dtype=torch.long, device=last.device)
    for size in range(1, longest + 1):
        same = (last[:, :, None, longest - size :] == spellings[:, None, :, :size]).all(3)
        found = found.masked_fill(same, size)
    return found.view(*last.shape[:2], *phrases.shape[1:3])


def _next(phrases: Tensor, begun: Tensor) -> Tensor:
    """The token of each spelling that follows its first `begun` [N, B, P, A]; any for one that is whole."""
    places = begun.clamp(max=phrases.shape[3] - 1)[..., None]
    return phrases[:, None].expand(-1, begun.shape[1], -1, -1, -1).gather(4, places)[..., 0]


def _order(totals: Tensor, progress: Progress, room: Tensor) -> Tensor:
    """Candidates [N, X] from the first to the last: the best of every bank, then the second best of every bank.

    Those with more missing than `room` [N] come after the others, and the impossible ones after these.
    """
    kind = torch.where(totals == NEVER, 2, (progress.missing > room[:, None]).long())
    banks = progress.bank.amax(1, keepdim=True) + 1
    bank = kind * banks + banks - 1 - progress.bank  # the fullest comes first
    order = totals.argsort(dim=1, descending=True, stable=True)
    rank = _rank(bank.gather(1, order))
    key = (kind.gather(1, order) * order.shape[1] + rank) * banks * 3 + bank.gather(1, order)
    return order.gather(1, key.argsort(dim=1, stable=True))


def _rank(groups: Tensor) -> Tensor:
    """How many entries before each one of [N, X] are in the same group."""
    together, order = groups.sort(dim=1, stable=True)
    places = torch.arange(groups.shape[1], device=groups.device).expand_as(groups)
    begins = functional.pad(together[:, 1:] != together[:, :-1], (1, 0), value=True)
    starts = torch.where(begins, places, 0).cummax(1).values
    return torch.empty_like(places).scatter(1, order, places - starts)


def _of(values: Tensor, parents: Tensor) -> Tensor:
    """What the beams `parents` [N, X] have of `values` [N, B, Y]: [N, X, Y]."""
    return values.gather(1, parents[..., None].expand(*parents.shape, values.shape[2]))


def _grouped(candidates: Candidates) -> Candidates:
    """Candidates [N, X] as those of one group."""
    return Candidates(*(part[:, None] for part in candidates))
