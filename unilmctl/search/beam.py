"""Beam search: the B likeliest unfinished outputs go on, finished ones are collected.

At each step the 2B best continuations of a sentence are ranked. Those among the first B that end are finished; the B
best that do not end go on. So there are always B live beams. A sentence is done when no live beam can still beat its
n-th best finished output, whatever comes: log-probabilities only fall, and the divisor of the score has a largest
value between the next length and the maximal one. At the maximal length every live beam is made to end.

How s2s-ft differs (`reference`): there an ended beam keeps its place for one step, so that fewer outputs go on; a
repeated n-gram costs 10000 instead of being impossible; outputs that are cut at the maximal length compete without an
end token; and nothing stops before the last step.

Shapes: N sentences, B beams, C = 2B candidates, T = maximal length, t tokens so far, V vocabulary, F outputs wanted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.search.rules import NEVER, Prefix, Rules
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import S, Step


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
) -> list[list[Hypothesis]]:
    """The `nbest` best outputs of each of N sentences, best first; fewer where the rules allow no more.

    `first` [N, V] are the logits of the first token, `state` that of N rows. Sentences that are done leave the batch.
    """
    sentences = first.shape[0]
    results: list[list[Hypothesis]] = [[] for _ in range(sentences)]
    waiting = torch.arange(sentences, device=first.device)
    live = _Live.start(sentences, first.device)
    finished = _Finished.start(sentences, nbest, rules.max_length, first.device)
    logits = first[:, None]
    for length in range(1, rules.max_length + 1):
        candidates = _candidates(logits, live, rules, prefix, beam)
        finished = finished.joined(candidates, live, rules, scoring)
        live, parents = _continued(candidates, live, rules)
        hope = live.totals.amax(1) / scoring.kindest(length + 1, rules.max_length)
        done = finished.scores[:, -1] >= hope
        for sentence in done.nonzero()[:, 0].tolist():
            results[int(waiting[sentence])] = finished.hypotheses(sentence)
        stay = None
        if done.any():
            stay = (~done).nonzero()[:, 0]
            waiting, parents = waiting[stay], parents[stay]
            live, finished = live.select(stay), finished.select(stay)
            prefix = None if prefix is None else prefix.select(stay)
        if len(waiting) == 0:
            break
        flat, state = step(live.tokens[:, :, -1].flatten(), state.reordered(parents.flatten(), stay))
        logits = flat.view(len(waiting), beam, -1)
    return results


class _Candidates(NamedTuple):
    """The best continuations of each sentence, best first: all [N, C].

    `parents` number the sentence's beams, `steps` are the log-probabilities of `tokens`, `totals` those of all so far.
    """

    totals: Tensor
    steps: Tensor
    tokens: Tensor
    parents: Tensor


@dataclass(frozen=True)
class _Live:
    """Unfinished outputs: totals [N, B] in falling order, tokens and their log-probabilities [N, B, t]."""

    totals: Tensor
    tokens: Tensor
    steps: Tensor

    @staticmethod
    def start(sentences: int, device: torch.device) -> "_Live":
        """One empty beam a sentence."""
        empty = torch.zeros(sentences, 1, 0, device=device)
        return _Live(torch.zeros(sentences, 1, device=device), empty.long(), empty)

    def select(self, sentences: Tensor) -> "_Live":
        """Only these sentences."""
        return _Live(self.totals[sentences], self.tokens[sentences], self.steps[sentences])

    def histories(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities of the beams `parents` [N, X]: [N, X, t] each."""
        index = parents[..., None].expand(*parents.shape, self.tokens.shape[2])
        return self.tokens.gather(1, index), self.steps.gather(1, index)


@dataclass(frozen=True)
class _Finished:
    """The best finished outputs so far, best first: scores and lengths [N, F], tokens and steps [N, F, T]."""

    scores: Tensor
    lengths: Tensor
    tokens: Tensor
    steps: Tensor

    @staticmethod
    def start(sentences: int, wanted: int, longest: int, device: torch.device) -> "_Finished":
        """None yet: all scores are -inf."""
        scores = torch.full((sentences, wanted), NEVER, device=device)
        steps = torch.zeros(sentences, wanted, longest, device=device)
        return _Finished(scores, scores.new_zeros(scores.shape, dtype=torch.long), steps.long(), steps)

    def select(self, sentences: Tensor) -> "_Finished":
        """Only these sentences."""
        return _Finished(*(part[sentences] for part in (self.scores, self.lengths, self.tokens, self.steps)))

    def joined(self, candidates: _Candidates, live: _Live, rules: Rules, scoring: Scoring) -> "_Finished":
        """With the candidates that end, are among the first B, and are better than what is here."""
        first = slice(0, candidates.tokens.shape[1] // 2)
        parents, tokens = candidates.parents[:, first], candidates.tokens[:, first]
        length = live.tokens.shape[2] + 1
        ends = tokens == rules.end
        if not ends.any():
            return self
        scores = torch.where(ends, candidates.totals[:, first] / scoring.divisor(length), NEVER)
        scores, order = torch.cat((self.scores, scores), 1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.scores.shape[1]]
        history, steps = live.histories(parents)
        lengths = torch.cat((self.lengths, torch.full_like(parents, length)), 1)
        return _Finished(
            scores[:, : self.scores.shape[1]],
            lengths.gather(1, order),
            _merged(self.tokens, torch.cat((history, tokens[..., None]), 2), order),
            _merged(self.steps, torch.cat((steps, candidates.steps[:, first, None]), 2), order),
        )

    def hypotheses(self, sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence, best first."""
        found = []
        for rank, score in enumerate(self.scores[sentence].tolist()):
            if score > NEVER:
                length = int(self.lengths[sentence, rank])
                tokens, steps = self.tokens[sentence, rank], self.steps[sentence, rank]
                found.append(Hypothesis(tokens[: length - 1].tolist(), score, steps[:length].tolist()))
        return found


def _merged(old: Tensor, new: Tensor, order: Tensor) -> Tensor:
    """Rows `order` [N, F] of both [N, F, T] and [N, X, t] together, padded to T: [N, F, T]."""
    padded = torch.nn.functional.pad(new, (0, old.shape[2] - new.shape[2]))
    index = order[..., None].expand(*order.shape, old.shape[2])
    return torch.cat((old, padded), 1).gather(1, index)


def _candidates(logits: Tensor, live: _Live, rules: Rules, prefix: Prefix | None, beam: int) -> _Candidates:
    """The 2 * `beam` best continuations of the live beams, given their logits [N, 1 or B, V]."""
    sentences, beams, vocabulary = logits.shape
    normalizer = logits.logsumexp(-1, keepdim=True)
    rules.apply(logits, live.tokens, prefix)
    width = min(vocabulary, 2 * beam if beams == 1 else beam + 1)
    scores, tokens = logits.topk(width, dim=-1)
    steps = (scores - normalizer).float().flatten(1)  # [N, B * width]
    totals = (live.totals[..., None] + steps.view(sentences, beams, width)).flatten(1)
    missing = max(0, 2 * beam - totals.shape[1])
    totals = torch.nn.functional.pad(totals, (0, missing), value=NEVER)
    totals, order = totals.topk(2 * beam, dim=1)
    order = order.clamp(max=steps.shape[1] - 1)  # what was padded has a total of -inf and is never read
    return _Candidates(totals, steps.gather(1, order), tokens.flatten(1).gather(1, order), order // width)


def _continued(candidates: _Candidates, live: _Live, rules: Rules) -> tuple[_Live, Tensor]:
    """The best half of the candidates that do not end, and the row [N, B] of the state that each continues."""
    sentences, count = candidates.tokens.shape
    ended = (candidates.tokens == rules.end) & (candidates.totals > NEVER)
    order = ended.sort(dim=1, stable=True).indices[:, : count // 2]
    totals, steps, tokens, parents = (part.gather(1, order) for part in candidates)
    history, past = live.histories(parents)
    beams = live.totals.shape[1]
    rows = parents + beams * torch.arange(sentences, device=parents.device)[:, None]
    grown = _Live(totals, torch.cat((history, tokens[..., None]), 2), torch.cat((past, steps[..., None]), 2))
    return grown, rows
