"""The coverage penalty of a search, against enumeration."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_search import END, Node, Toy, every_output

from unilmctl.search import Beam, Constrained, Covering, Rules, Scoring, Started, Task, holds, run

SENTENCES = 4


@dataclass
class Looking(Node):
    """A node that looks at the words of its source, as a table [N, histories, S] says."""

    shares: Tensor | None = None

    def weights(self) -> Tensor:
        """As wide as the longest source of those that are there, or wider."""
        assert self.shares is not None
        found = self.shares[self.sentence, self.place]
        return found[:, : int((~found.isnan()).sum(1).max())]

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Looking":
        return Looking(**vars(super().reordered(rows, sentences)), shares=self.shares)

    def joined(self, other: Node) -> "Looking":
        return Looking(**vars(super().joined(other)), shares=self.shares)


class Sources(Toy):
    """A toy whose sentences have sources of 1, 2, 3, ... words."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, sentences=SENTENCES, depth=3)
        weights = torch.rand(*self.table.shape[:2], SENTENCES, generator=torch.Generator().manual_seed(seed))
        absent = torch.arange(SENTENCES) > torch.arange(SENTENCES)[:, None, None]
        weights = weights.masked_fill(absent, 0)
        self.shares = (weights / weights.sum(2, keepdim=True)).masked_fill(absent, torch.nan)

    def start(self, sentences: list[int] | None = None) -> tuple[Tensor, Node]:
        logits, node = super().start(sentences)
        return logits, Looking(**vars(node), shares=self.shares)

    def step(self, tokens: Tensor, state: Node) -> tuple[Tensor, Node]:
        logits, node = super().step(tokens, state)
        return logits, Looking(**vars(node), shares=self.shares)

    def penalty(self, sentence: int, ids: list[int]) -> float:
        place, covered = 0, self.shares[sentence, 0].clone()
        for token in ids:
            place = place * self.vocabulary + token + 1
            covered += self.shares[sentence, place]
        return float(covered[: sentence + 1].clamp(max=1).log().sum())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    penalty=st.sampled_from([0.1, 0.5, 3.0]),
    scoring=st.sampled_from([Scoring(), Scoring(0.9)]),
    phrases=st.lists(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=2), max_size=1), min_size=4, max_size=4),
    order=st.permutations(range(SENTENCES)),
    room=st.integers(1, SENTENCES),
)
def test_a_wide_beam_finds_the_best_with_the_penalty_in_any_company(
    seed: int,
    penalty: float,
    scoring: Scoring,
    phrases: list[list[list[int]]],
    order: list[int],
    room: int,
) -> None:
    toy, rules = Sources(seed), Rules(END, max_length=4)
    waiting = list(order)

    def arrivals(live: int) -> Started[Node] | None:
        now = [waiting.pop() for _ in range(min(room - live, len(waiting)))]
        return (
            Started([Task(place, (), [[phrase] for phrase in phrases[place]]) for place in now], *toy.start(now))
            if now
            else None
        )

    strategy = Covering(Constrained(Beam(rules, 90, 3, scoring)), penalty, lambda state: state.weights())
    found = dict(run(strategy, toy.step, arrivals))
    for sentence, wish in enumerate(phrases):
        every = every_output(toy, sentence, rules, scoring)
        held = [entry for entry in every if all(holds(entry[1], [phrase]) for phrase in wish)]
        expected = sorted(
            [(score + penalty * toy.penalty(sentence, ids), ids) for score, ids in held], key=lambda entry: -entry[0]
        )[:3]
        assert [h.ids for h in found[sentence]] == [ids for _, ids in expected]
        assert [h.score for h in found[sentence]] == pytest.approx([score for score, _ in expected], abs=1e-4)
