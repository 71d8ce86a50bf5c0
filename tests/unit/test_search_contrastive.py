"""Contrastive search against a plain twin that writes one output at a time."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_search import END, Node, Toy, allowed

from unilmctl.search import Contrastive, Hypothesis, Rules, Scoring, Started, Task, greedy, in_order, run

WIDTH = 3
DEPTH = 4
SEEDS = st.integers(0, 10_000)


@dataclass
class Feeling(Node):
    """A node with hidden states, from a table [N, histories, D]."""

    states: Tensor | None = None

    @property
    def hidden(self) -> Tensor:
        assert self.states is not None
        return self.states[self.sentence, self.place]

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Feeling":
        return Feeling(**vars(super().reordered(rows, sentences)), states=self.states)

    def joined(self, other: Node) -> "Feeling":
        return Feeling(**vars(super().joined(other)), states=self.states)


class Feelings(Toy):
    """A toy whose states have hidden states."""

    def __init__(self, seed: int, **sizes: int) -> None:
        super().__init__(seed, depth=DEPTH, **sizes)
        random = torch.Generator().manual_seed(seed)
        self.states = torch.randn(*self.table.shape[:2], WIDTH, generator=random)

    def start(self, sentences: list[int] | None = None) -> tuple[Tensor, Node]:
        logits, node = super().start(sentences)
        return logits, Feeling(**vars(node), states=self.states)

    def step(self, tokens: Tensor, state: Node) -> tuple[Tensor, Node]:
        logits, node = super().step(tokens, state)
        return logits, Feeling(**vars(node), states=self.states)


def twin(toy: Feelings, sentence: int, rules: Rules, count: int, alpha: float) -> list[int] | None:
    ids: list[int] = []
    place = 0
    past = [toy.states[sentence, 0].double()]
    while len(ids) < rules.max_length - 1:
        scores = toy.table[sentence, place].double().softmax(-1).tolist()
        possible = [
            t
            for t in range(toy.vocabulary)
            if t != END and allowed([*ids, t], Rules(END, 9, 0, rules.no_repeat_ngram, (), rules.forbid))
        ]
        if len(ids) >= rules.min_length:
            possible.append(END)
        if not possible:
            return None
        offered = sorted(possible, key=lambda token: -scores[token])[:count]
        states = {t: toy.states[sentence, place * toy.vocabulary + t + 1].double() for t in offered}
        worth = {
            token: (1 - alpha) * scores[token]
            - alpha * max(float(torch.cosine_similarity(states[token], old, dim=0)) for old in past)
            for token in offered
        }
        best = max(offered, key=lambda token: worth[token])
        if best == END:
            return ids
        ids.append(best)
        past.append(states[best])
        place = place * toy.vocabulary + best + 1
    return ids


def found(toy: Feelings, strategy: Contrastive) -> list[list[Hypothesis]]:
    return in_order(strategy, toy.step, [Task(key) for key in range(len(toy.table))], *toy.start())  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    count=st.integers(1, 4),
    alpha=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    limits=st.sampled_from([(5, 0, 0, ()), (5, 2, 1, ()), (3, 0, 0, (1,)), (1, 0, 0, ()), (5, 3, 0, (1, 2, 3))]),
)
def test_it_equals_its_twin(seed: int, count: int, alpha: float, limits: tuple[int, int, int, tuple[int, ...]]) -> None:
    toy, (longest, shortest, ngram, forbid) = Feelings(seed, sentences=3), limits
    rules = Rules(END, longest, shortest, ngram, forbid=forbid)
    scoring = Scoring(0.7)
    for sentence, hypotheses in enumerate(found(toy, Contrastive(rules, count, alpha, WIDTH, scoring))):
        expected = twin(toy, sentence, rules, count, alpha)
        assert [h.ids for h in hypotheses] == ([] if expected is None else [expected])
        for hypothesis in hypotheses:
            own = toy.token_scores(sentence, [*hypothesis.ids, END])
            assert hypothesis.token_scores == pytest.approx(own, abs=1e-5)
            assert hypothesis.score == pytest.approx(sum(own) / scoring.divisor(len(own)), abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, count=st.integers(1, 4))
def test_without_a_penalty_or_a_choice_it_is_greedy(seed: int, count: int) -> None:
    toy, rules = Feelings(seed, sentences=3), Rules(END, max_length=5)
    plain = [[h.ids for h in hs] for hs in greedy(*toy.start(), toy.step, rules)]
    assert [[h.ids for h in hs] for hs in found(toy, Contrastive(rules, count, 0.0, WIDTH))] == plain
    assert [[h.ids for h in hs] for hs in found(toy, Contrastive(rules, 1, 0.9, WIDTH))] == plain


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, order=st.permutations(range(4)), room=st.integers(1, 3))
def test_company_and_order_change_nothing(seed: int, order: list[int], room: int) -> None:
    toy, strategy = Feelings(seed, sentences=4), Contrastive(Rules(END, max_length=5), 3, 0.6, WIDTH)
    waiting = list(order)

    def arrivals(live: int) -> Started[Node] | None:
        if not waiting or live >= room:
            return None
        place = waiting.pop()
        return Started([Task(place)], *toy.start([place]))

    alone = found(toy, strategy)
    assert dict(run(strategy, toy.step, arrivals)) == dict(enumerate(alone))  # type: ignore[arg-type]


def test_a_beginning_is_written_whatever_it_resembles() -> None:
    toy, rules = Feelings(3, sentences=1), Rules(END, max_length=5)
    toy.table[0, 0, 2] = -20.0
    strategy = Contrastive(rules, 4, 0.9, WIDTH)
    (best,) = in_order(strategy, toy.step, [Task(0, [2, 2])], *toy.start())[0]  # type: ignore[arg-type]
    assert best.ids[:2] == [2, 2]
