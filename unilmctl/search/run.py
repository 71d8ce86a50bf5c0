"""The loop that every search runs in: sentences arrive, write token after token, and leave when they are done.

A strategy chooses; the loop keeps the batch full. Sentences of any age are written together. One that is done leaves,
and the last ones of the batch take the places that became free, so that little has to be moved. One that arrives
chooses its first tokens before it joins the others.

Shapes: N sentences, B outputs a sentence, R = N x B rows in sentence-major order, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol

import torch
from torch import Tensor

from unilmctl.search.scoring import Hypothesis
from unilmctl.search.step import S, S_contra, Step
from unilmctl.search.table import TableT

Phrase = Sequence[Sequence[int]]
"""The spellings of something that must be written: tokens each, any of which will do."""


class Task(NamedTuple):
    """One sentence's own wishes: how its outputs must begin, and phrases that they must hold.

    `key` names it in the results and seeds its sampling.
    """

    key: int
    prefix: Sequence[int] = ()
    phrases: Sequence[Phrase] = ()


class Started(NamedTuple, Generic[S]):
    """Sentences that start: the logits [N, V] of their first tokens and the state of N rows."""

    tasks: Sequence[Task]
    first: Tensor
    state: S


Arrivals = Callable[[int], Started[S] | None]
"""Given the number of live sentences, more that start now; None when there is no room or nothing waits."""


class Choice(NamedTuple, Generic[TableT]):
    """What is written now: the next table, `tokens` [N, B], and `done` [N], the sentences that need no further step.

    `parents` [N, B] number the sentence's outputs that the new ones continue; None: each goes on by itself.
    """

    table: TableT
    tokens: Tensor
    parents: Tensor | None
    done: Tensor


class Strategy(Protocol[TableT, S_contra]):
    """A way of choosing, for sentences of any age."""

    @property
    def outputs(self) -> int:
        """B, the rows that a sentence takes."""

    def begin(self, tasks: Sequence[Task], device: torch.device) -> TableT:
        """The table of sentences that have written nothing."""

    def choose(self, logits: Tensor, table: TableT, state: S_contra) -> Choice[TableT]:
        """The next tokens, given their logits [N, B, V] and the state that these came with.

        The B outputs of a sentence that has written nothing are equal. What is chosen for one sentence does not depend
        on the others.
        """

    def results(self, table: TableT, sentence: int) -> list[Hypothesis]:
        """The outputs of one sentence that is done, best first."""


def run(strategy: Strategy[TableT, S], step: Step[S], arrivals: Arrivals[S]) -> Iterator[tuple[int, list[Hypothesis]]]:
    """The key and the outputs of every sentence, in the order in which they are done.

    `arrivals` is asked before every step until it gives None; with no live sentence None is the end.
    """
    live: _Live[TableT, S] | None = None
    while True:
        if live is not None:
            logits, state = step(live.tokens.flatten(), live.state)
            live, finished = _chosen(strategy, live.keys, logits, live.table, state)
            yield from finished
        while (started := arrivals(0 if live is None else len(live.keys))) is not None:
            fresh, finished = _begun(strategy, started)
            yield from finished
            live = live.joined(fresh) if live and fresh else live or fresh
        if live is None:
            return


def in_order(
    strategy: Strategy[TableT, S], step: Step[S], tasks: Sequence[Task], first: Tensor, state: S
) -> list[list[Hypothesis]]:
    """The outputs of sentences that start together, given their logits [N, V] and their state; no two share a key."""
    waiting = [Started(tasks, first, state)] if tasks else []
    found = dict(run(strategy, step, lambda live: waiting.pop() if waiting else None))
    assert len(found) == len(tasks), "every sentence has a key of its own"
    return [found[task.key] for task in tasks]


@dataclass(frozen=True)
class _Live(Generic[TableT, S]):
    """Sentences that are being written: their keys, table, last tokens [N, B] and state."""

    keys: list[int]
    table: TableT
    tokens: Tensor
    state: S

    def joined(self, other: "_Live[TableT, S]") -> "_Live[TableT, S]":
        return _Live(
            self.keys + other.keys,
            self.table.joined(other.table),
            torch.cat((self.tokens, other.tokens)),
            self.state.joined(other.state),
        )


Finished = list[tuple[int, list[Hypothesis]]]


def _begun(strategy: Strategy[TableT, S], started: Started[S]) -> tuple[_Live[TableT, S] | None, Finished]:
    """Sentences after their first choice: those that go on, and those that are done with it."""
    first, state, outputs = started.first, started.state, strategy.outputs
    if outputs > 1:
        rows = torch.arange(len(first), device=first.device).repeat_interleave(outputs)
        first, state = first[rows], state.reordered(rows)
    table = strategy.begin(started.tasks, first.device)
    return _chosen(strategy, [task.key for task in started.tasks], first, table, state)


def _chosen(
    strategy: Strategy[TableT, S], keys: list[int], logits: Tensor, table: TableT, state: S
) -> tuple[_Live[TableT, S] | None, Finished]:
    """Sentences after a choice from logits [R, V]: those that go on, and those that are done with it."""
    table, tokens, parents, done = strategy.choose(logits.view(len(keys), strategy.outputs, -1), table, state)
    ended = done.tolist()
    if not any(ended):
        return _Live(keys, table, tokens, state if parents is None else state.reordered(_rows(parents))), []
    finished = [(keys[place], strategy.results(table, place)) for place, is_done in enumerate(ended) if is_done]
    places = _stay(ended)
    if not places:
        return None, finished
    stay = torch.tensor(places, device=tokens.device)
    if parents is None:
        parents = torch.arange(strategy.outputs, device=tokens.device).expand_as(tokens)
    state = state.reordered(_rows(parents, stay), stay)
    return _Live([keys[place] for place in places], table[stay], tokens[stay], state), finished


def _rows(parents: Tensor, sentences: Tensor | None = None) -> Tensor:
    """The state's rows [R] that the outputs `parents` [N, B] are, of all sentences or of some [N']."""
    count, outputs = parents.shape
    rows = parents + torch.arange(0, count * outputs, outputs, device=parents.device)[:, None]
    return (rows if sentences is None else rows[sentences]).flatten()


def _stay(done: list[bool]) -> list[int]:
    """The sentences that are not done, each in its own place, but for the last ones, which fill the gaps."""
    count = done.count(False)
    movers = [place for place in range(count, len(done)) if not done[place]]
    return [place if not done[place] else movers.pop() for place in range(count)]
