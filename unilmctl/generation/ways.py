"""Two ways to fill the gaps of a line: a token for each of its marks, or as many as a gap turns out to need.

A way is what a search needs: plans of lines, a step function over the state of their outputs, the rules of an output,
and what it means.

Shapes: N lines, R rows of a search, V vocabulary, M marks of a line.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from unilmctl.decoding import Moments, Plan, Planned, Spanned, Spans
from unilmctl.generation.budget import budgeted
from unilmctl.generation.gapped import Gapped
from unilmctl.objectives import gap_row
from unilmctl.rows import LANGUAGE_MODEL, Floats, Frame, Ints
from unilmctl.search import Hypothesis, Rules


class Gap(NamedTuple):
    """What was put into a gap: token ids, and the log-probability of each where it was chosen.

    A gap that could have been of any length has one more, that of its end.
    """

    ids: list[int]
    token_scores: list[float]


class Way(Protocol):
    """How gaps are filled. A plan is what the way makes of a line."""

    def size(self, line: Gapped) -> int:
        """The positions that a line takes."""

    def plans(self, lines: Sequence[Gapped], budget: int) -> list[Any]:
        """What is to be done, with `budget` tokens worked on at a time."""

    def cost(self, plan: Any) -> int:
        """The tokens that an output of the plan keeps busy."""

    def start(self, plans: Sequence[Any]) -> tuple[Tensor, Any]:
        """The logits [N, V + x] of the first tokens, and the state."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The tokens [R] just chosen give the next ones' logits and the state after them."""

    def rules(self, plans: Sequence[Any], forbid: Sequence[int]) -> Rules:
        """What outputs may be, if these tokens are never written."""

    def gaps(self, plan: Any, line: Gapped, hypothesis: Hypothesis) -> list[Gap]:
        """What an output says about each gap of its line."""


class ByMark:
    """A token for each mark, by the rows of the objective `name`, in an order of `filling.ORDERS`."""

    def __init__(self, moments: Moments, frame: Frame, name: str, order: str) -> None:
        self.moments, self.frame, self.name, self.order = moments, frame, name, order

    def size(self, line: Gapped) -> int:
        """The positions that a line takes."""
        return len(line.ids) + 2

    def plans(self, lines: Sequence[Gapped], budget: int) -> list[Plan]:
        """The row of each line, its answers in the order that was asked for."""
        texts = [_framed(line.ids, self.frame) for line in lines]
        places = [np.flatnonzero(text == self.frame.mask) for text in texts]
        sureness: list[Floats] = [np.zeros(len(some)) for some in places]
        if self.order in ("surest", "gaps"):
            whole = [self._plan(text, [some]) for text, some in zip(texts, places, strict=True)]
            for batch in budgeted([len(plan.row) for plan in whole], budget):
                for place, sure in zip(batch, self.moments.looked([whole[place] for place in batch]), strict=True):
                    sureness[place] = sure.cpu().numpy()
        orders = [ordered(some, sure, self.order) for some, sure in zip(places, sureness, strict=True)]
        return [self._plan(text, order) for text, order in zip(texts, orders, strict=True)]

    def _plan(self, text: Ints, order: list[Ints]) -> Plan:
        return Plan.of(gap_row(self.name, text, order, self.frame))

    def cost(self, plan: Plan) -> int:
        """The tokens of the longest moment."""
        return max(len(moment.slots) for moment in plan.moments)

    def start(self, plans: Sequence[Plan]) -> tuple[Tensor, Planned]:
        """As `Moments.start`."""
        return self.moments.start(plans)

    def step(self, tokens: Tensor, state: Planned) -> tuple[Tensor, Planned]:
        """As `Moments.step`."""
        return self.moments.step(tokens, state)

    def rules(self, plans: Sequence[Plan], forbid: Sequence[int]) -> Rules:
        """An output has an answer for every mark."""
        longest = 1 + max(plan.size for plan in plans)
        return Rules(self.moments.end, longest, forbid=(*forbid, self.frame.separator))

    def gaps(self, plan: Plan, line: Gapped, hypothesis: Hypothesis) -> list[Gap]:
        """The answers, each where it belongs."""
        places = plan.row.labels[LANGUAGE_MODEL].answers[plan.order] - 1  # without [CLS]
        known = dict(zip(places.tolist(), zip(hypothesis.ids, hypothesis.token_scores, strict=False), strict=True))
        answers = [[known[place] for place in gap.tolist()] for gap in line.gaps]
        return [Gap([token for token, _ in some], [score for _, score in some]) for some in answers]


class BySpan:
    """Each gap as long as it turns out to be, however many marks it has, from left to right (GLM)."""

    def __init__(self, spans: Spans) -> None:
        self.spans, self.frame = spans, spans.frame

    def size(self, line: Gapped) -> int:
        """The positions that a line takes."""
        return len(_single(line)) + 2

    def plans(self, lines: Sequence[Gapped], budget: int) -> list[Ints]:
        """Each line with special tokens and one mark for every gap."""
        del budget
        return [_framed(_single(line), self.frame) for line in lines]

    def cost(self, plan: Ints) -> int:
        """The tokens of the line and of its gaps."""
        return len(plan) + self._room(plan)

    def _room(self, plan: Ints) -> int:
        return int((plan == self.frame.mask).sum()) * (self.spans.longest + 1)

    def start(self, plans: Sequence[Ints]) -> tuple[Tensor, Spanned]:
        """As `Spans.start`."""
        return self.spans.start(plans)

    def step(self, tokens: Tensor, state: Spanned) -> tuple[Tensor, Spanned]:
        """As `Spans.step`."""
        return self.spans.step(tokens, state)

    def rules(self, plans: Sequence[Ints], forbid: Sequence[int]) -> Rules:
        """An output has an end for every gap."""
        longest = max(map(self._room, plans))
        return Rules(self.frame.separator, longest, forbid=(*forbid, self.spans.rest))

    def gaps(self, plan: Ints, line: Gapped, hypothesis: Hypothesis) -> list[Gap]:
        """The tokens of each gap, up to its end."""
        del plan, line
        ends = [place for place, token in enumerate(hypothesis.ids) if token == self.spans.following]
        begins = [0, *(end + 1 for end in ends)]
        return [
            Gap(hypothesis.ids[begin:end], hypothesis.token_scores[begin : end + 1])
            for begin, end in zip(begins, [*ends, len(hypothesis.ids)], strict=True)
        ]


def ordered(places: Ints, sureness: Floats, order: str) -> list[Ints]:
    """The places [M] of a line's marks in an order of `ORDERS`, those of each entry at once, given how sure each is."""
    if order == "at-once":
        return [places]
    if order == "gaps":
        edges = np.flatnonzero(np.diff(places) > 1) + 1
        gaps, sure = np.split(places, edges), [part.mean() for part in np.split(sureness, edges)]
        return [gaps[number] for number in np.argsort(-np.array(sure), kind="stable")]
    chosen = range(len(places)) if order == "left-to-right" else np.argsort(-sureness, kind="stable")
    return [places[[number]] for number in chosen]


def _framed(ids: Ints, frame: Frame) -> Ints:
    return np.concatenate(([frame.start], ids, [frame.separator])).astype(np.int64)


def _single(line: Gapped) -> Ints:
    """The tokens of a line, of each gap one."""
    return np.delete(line.ids, [place for gap in line.gaps for place in gap[1:].tolist()])
