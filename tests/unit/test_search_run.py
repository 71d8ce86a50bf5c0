"""The loop: whatever the order and company in which sentences arrive, each gets what it gets alone."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Node, Toy

from unilmctl.search import (
    Beam,
    Follow,
    Hypothesis,
    Rules,
    Sampling,
    Scoring,
    Started,
    Strategy,
    Table,
    Task,
    in_order,
    run,
)

SENTENCES = 7
STRATEGIES = st.sampled_from(
    [
        lambda rules: Beam(rules, 3, 2, Scoring(0.6)),
        lambda rules: Beam(rules, 4, 4, groups=2, diversity=0.7),
        lambda rules: Beam(rules, 1),
        lambda rules: Beam(rules, 9, 2),
        Follow,
        lambda rules: Follow(rules, sampling=Sampling(3, top_p=0.9), outputs=3),
        lambda rules: Follow(rules, sampling=Sampling(3, top_k=9), outputs=3),
        lambda rules: Follow(rules, sampling=Sampling(4, typical_p=0.8), outputs=2),
    ]
)
RULES = st.builds(
    Rules,
    end=st.just(END),
    max_length=st.integers(2, 6),
    min_length=st.integers(0, 2),
    no_repeat_ngram=st.integers(0, 3),
    forbid=st.sampled_from([(), (2,)]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
)


def tasks(rules: Rules, prefixes: list[list[int]]) -> list[Task]:
    return [Task(10 + place, prefix[: rules.max_length - 1]) for place, prefix in enumerate(prefixes)]


class Arrivals:
    """Sentences `order` arrive in groups of the given sizes, and are asked for so many times, while there is room."""

    def __init__(self, toy: Toy, order: list[Task], sizes: list[int], room: int) -> None:
        self.toy, self.waiting, self.sizes, self.room = toy, list(order), list(sizes), room
        self.asked: list[int] = []

    def __call__(self, live: int) -> Started[Node] | None:
        self.asked.append(live)
        size = self.sizes.pop(0) if self.sizes else self.room
        if live > 0:
            size = min(size, self.room - live)
        if not self.waiting or size <= 0:
            # An empty batch that is given nothing is the end, so that the sentences that wait must start then.
            size = 1 if live == 0 and self.waiting else 0
        now, self.waiting = self.waiting[:size], self.waiting[size:]
        return Started(now, *self.toy.start([task.key - 10 for task in now])) if now else None


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    strategy=STRATEGIES,
    rules=RULES,
    order=st.permutations(range(SENTENCES)),
    prefixes=st.lists(st.lists(st.integers(1, 3), max_size=2), min_size=SENTENCES, max_size=SENTENCES),
    sizes=st.lists(st.integers(0, 4), max_size=8),
    room=st.integers(1, SENTENCES),
)
def test_each_sentence_gets_what_it_gets_alone(
    seed: int,
    strategy: Callable[[Rules], Strategy[Table, Node]],
    rules: Rules,
    order: list[int],
    prefixes: list[list[int]],
    sizes: list[int],
    room: int,
) -> None:
    toy, wishes, chosen = Toy(seed, sentences=SENTENCES, depth=5), tasks(rules, prefixes), strategy(rules)
    found: dict[int, list[Hypothesis]] = {}
    for key, hypotheses in run(chosen, toy.step, Arrivals(toy, [wishes[place] for place in order], sizes, room)):
        assert key not in found
        found[key] = hypotheses
    assert set(found) == {task.key for task in wishes}
    for place, task in enumerate(wishes):
        assert found[task.key] == in_order(chosen, toy.step, [task], *toy.start([place]))[0]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), strategy=STRATEGIES, forbid=st.sampled_from([(), (1, 2), (1, 2, 3)]))
def test_columns_behind_the_vocabulary_are_never_written(
    seed: int, strategy: Callable[[Rules], Strategy[Table, Node]], forbid: tuple[int, ...]
) -> None:
    toy, rules = Toy(seed, depth=5), Rules(END, max_length=5, min_length=2, no_repeat_ngram=1, forbid=forbid)

    def widened(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(logits, (0, 2560 - toy.vocabulary), value=float("-inf"))

    def step(tokens: torch.Tensor, state: Node) -> tuple[torch.Tensor, Node]:
        assert tokens.max() < toy.vocabulary
        logits, state = toy.step(tokens, state)
        return widened(logits), state

    wishes, (first, state) = [Task(0), Task(1)], toy.start()
    found = in_order(strategy(rules), step, wishes, widened(first), state)
    expected = in_order(strategy(rules), toy.step, wishes, *toy.start())
    assert [[h.ids for h in hs] for hs in found] == [[h.ids for h in hs] for hs in expected]


def test_the_results_come_as_soon_as_they_are_there() -> None:
    toy = Toy(1, sentences=3, depth=4)
    toy.table[:] = 0.0
    for sentence, length in enumerate((3, 0, 1)):
        toy.table[sentence, :, END] = -9.0
        place = 0
        for _ in range(length):
            toy.table[sentence, place, 1] = 9.0
            place = place * toy.vocabulary + 2
        toy.table[sentence, place, END] = 20.0
    wishes = [Task(10), Task(11), Task(12)]
    found = run(Follow(Rules(END, max_length=6)), toy.step, Arrivals(toy, wishes, [3], 3))
    seen = [(key, len(toy.calls), hypotheses[0].ids) for key, hypotheses in found]
    assert seen == [(11, 0, []), (12, 1, [1]), (10, 3, [1, 1, 1])]
    assert toy.calls == [2, 1, 1]


class Watched(Node):
    """A state that tells which sentences stayed, in which order."""

    seen: list[list[int]] = []

    def reordered(self, rows: torch.Tensor, sentences: torch.Tensor | None = None) -> "Watched":
        if sentences is not None:
            self.seen.append(sentences.tolist())
        node = super().reordered(rows, sentences)
        return Watched(node.sentence, node.place)


@pytest.mark.parametrize(
    ("ended", "stay"),
    [
        ([1, 0, 0, 0, 0, 0], [5, 1, 2, 3, 4]),
        ([0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 4]),
        ([0, 1, 0, 1, 0, 0], [0, 5, 2, 4]),
        ([1, 1, 1, 0, 1, 0], [5, 3]),
        ([1, 0, 1, 1, 1, 1], [1]),
    ],
)
def test_only_the_last_sentences_move_into_the_places_that_became_free(ended: list[int], stay: list[int]) -> None:
    toy = Toy(1, sentences=6, depth=2)
    toy.table[:, 0] = 0.0
    toy.table[:, 0, END] = torch.tensor([9.0 if done else -9.0 for done in ended])
    toy.table[:, 1:, END] = 9.0
    logits, node = toy.start()
    Watched.seen = []
    in_order(Beam(Rules(END, 4), 2), toy.step, [Task(key) for key in range(6)], logits, Watched(**vars(node)))
    assert Watched.seen[0] == stay


def test_sentences_are_asked_for_until_there_is_no_room_and_again_when_some_have_left() -> None:
    toy = Toy(1, sentences=4, depth=4)
    toy.table[:] = 0.0
    toy.table[:, 0, END] = -9.0
    toy.table[:, 1:, END] = 9.0
    arrivals = Arrivals(toy, [Task(10 + place) for place in range(4)], [1, 1, 1, 1, 1, 1, 1, 1], 2)
    keys = [key for key, _ in run(Follow(Rules(END, 3)), toy.step, arrivals)]
    assert keys == [10, 11, 12, 13]
    assert arrivals.asked == [0, 1, 2, 0, 1, 2, 0]
    assert toy.calls == [2, 2]


def test_no_sentences_give_no_results() -> None:
    toy = Toy(1)
    assert list(run(Beam(Rules(END, 3), 2), toy.step, lambda live: None)) == []
    assert in_order(Follow(Rules(END, 3)), toy.step, [], *toy.start([])) == []
