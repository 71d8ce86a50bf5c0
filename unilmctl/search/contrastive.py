"""Contrastive search: a likely token whose hidden state is unlike those before it (Su et al. 2022, arXiv 2202.06417).

The k likeliest continuations are written, each in a row of its own, so that the model says what it makes of them. The
one goes on for which

    (1 - alpha) * probability - alpha * largest cosine between its hidden state and the earlier ones

is largest; then its own k continuations are written. The earlier ones begin with the state that predicted the first
token. There is no chance in it, and one output a sentence. A token is chosen a step after it was offered, but for the
end at the maximal length, where there is no choice.

Shapes: N sentences, K candidates a sentence, T maximal length, D hidden width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from unilmctl.search.rules import NEVER, Rules
from unilmctl.search.run import Choice, Task
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import State
from unilmctl.search.table import Table
from unilmctl.search.top import top


class Seen(State, Protocol):
    """A state that tells the last hidden states."""

    @property
    def hidden(self) -> Tensor:
        """Where the next token is predicted: [R, D]."""


@dataclass(frozen=True)
class Offers(Table):
    """What was chosen, and what is offered.

    `times` [N] count the offers. Tokens that were chosen and the model's own log-probabilities of them are [N, 1, T],
    totals [N], and the normalised hidden states after them [N, T, D], the first one before any token. Those on offer,
    with what they are ranked by, are [N, K].
    """

    times: Tensor
    forced: Tensor
    tokens: Tensor
    steps: Tensor
    totals: Tensor
    past: Tensor
    offered: Tensor
    ranked: Tensor
    own: Tensor


@dataclass(frozen=True)
class Contrastive:
    """The strategy of this module, with `alpha` from 0 (greedy) to 1; `width` is that of the hidden states."""

    rules: Rules
    candidates: int
    alpha: float
    width: int
    scoring: Scoring = SUM

    @property
    def outputs(self) -> int:
        """K, the rows that a sentence takes."""
        return self.candidates

    def begin(self, tasks: Sequence[Task], device: torch.device) -> Offers:
        """Nothing chosen, nothing offered."""
        count, longest = len(tasks), self.rules.max_length
        steps = torch.zeros(count, 1, longest, device=device)
        nothing = steps.new_zeros(count, self.candidates)
        forced = self.rules.forced([task.prefix for task in tasks], device)
        return Offers(
            torch.zeros(count, dtype=torch.long, device=device),
            forced,
            steps.long(),
            steps,
            steps.new_zeros(count),
            steps.new_zeros(count, longest, self.width),
            nothing.long(),
            nothing,
            nothing,
        )

    def choose(self, logits: Tensor, table: Offers, state: Seen) -> Choice[Offers]:
        """Chooses among the tokens that were offered, and offers the next."""
        hidden = functional.normalize(state.hidden.float(), dim=-1).view(*table.offered.shape, self.width)
        best = self._worth(hidden, table).argmax(1, keepdim=True)  # [N, 1]; all rows are equal before the first offer
        chosen = table.offered.gather(1, best)
        places = (table.times - 1).clamp(min=0)[:, None, None]
        tokens = table.tokens.scatter(2, places, chosen[..., None])
        steps = table.steps.scatter(2, places, table.own.gather(1, best)[..., None])
        totals = table.totals + table.ranked.gather(1, best)[:, 0]
        rows = torch.arange(len(best), device=best.device)
        past = table.past.index_put((rows, table.times), hidden[rows, best[:, 0]])
        scores = self.rules.scores(logits[rows, best[:, 0]][:, None], tokens, table.times, table.forced)
        ranked, offered = top(scores.ranked, self.candidates)
        own = scores.own.gather(2, offered)
        # An impossible candidate may hold a column of the logits that no token has.
        offered = offered.masked_fill(ranked == NEVER, self.rules.end)
        times = table.times + 1
        done = (chosen[:, 0] == self.rules.end) & (times > 1) | (totals == NEVER) | (times == self.rules.max_length)
        offers = (part[:, 0] for part in (offered, ranked, own))
        written = Offers(times, table.forced, tokens, steps, totals, past, *offers)
        return Choice(written, written.offered, best.expand_as(written.offered), done)

    def results(self, table: Offers, sentence: int) -> list[Hypothesis]:
        """The output of one sentence; none where the rules allow none."""
        length = int(table.times[sentence]) - 1
        ids = table.tokens[sentence, 0, :length].tolist()
        steps, total = table.steps[sentence, 0, :length].tolist(), float(table.totals[sentence])
        if ids[-1:] == [self.rules.end]:
            ids = ids[:-1]
        else:
            steps.append(float(table.own[sentence, 0]))
            total += float(table.ranked[sentence, 0])
        return [Hypothesis(ids, total / self.scoring.divisor(len(steps)), steps)] if total > NEVER else []

    def _worth(self, hidden: Tensor, table: Offers) -> Tensor:
        """What the offered tokens are chosen by, given the normalised hidden states after them [N, K, D]: [N, K]."""
        likeness = hidden @ table.past.transpose(1, 2)  # [N, K, T]
        unwritten = torch.arange(likeness.shape[2], device=hidden.device) >= table.times[:, None, None]
        repetition = likeness.masked_fill(unwritten, -1).amax(2)
        worth = (1 - self.alpha) * table.ranked.exp() - self.alpha * repetition
        return worth.masked_fill(table.ranked == NEVER, NEVER)
