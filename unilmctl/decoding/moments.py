"""A row moment by moment, as its times say: what it asks for is written, read where the row shows it, and asked on.

A row of any objective is a plan for writing. Its labels ask for tokens, those of one time at once; a slot that shows a
token which was asked for before its time holds what was written. So the rule alone says what is read in a step: what is
new since the moment before. What a later moment can see stays in the cache, the rest, such as UniLMv2's [P]s, does not;
and what is no longer readable leaves it. A moment that sees nothing but itself is a full pass.

Every answer is handed to a search as one token. After the last one nothing but an end can be chosen, `Moments.end`,
which is no entry of the vocabulary and costs nothing.

Shapes: N sentences, B beams a sentence, R = N x B rows in sentence-major order, T slots of a row, M answers of a row, Q
slots that are read in a moment, q of them asked, D hidden width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unilmctl.model import Cache, Encoder, KeysValues
from unilmctl.rows import LANGUAGE_MODEL, Ints, Row
from unilmctl.visibility import FOREVER, PADDING, Slots

ROOM = 32
"""Columns that a cache begins with beside those of the first moment."""


class Moment(NamedTuple):
    """What is read at a moment: slots of the row [Q], the last `asked` of which predict.

    `kept` [Q] are those that a later moment sees. One that is `alone` sees nothing that was read before.
    """

    slots: Ints
    asked: int
    kept: NDArray[np.bool_]
    alone: bool


@dataclass(frozen=True)
class Plan:
    """A row of one document, its moments, and for each slot the answer [T] that it holds (-1: what the row says).

    Answers are numbered in the order in which they are written; `firsts` says with which of them each moment begins,
    `order` [M] which label asked for each.
    """

    row: Row
    moments: list[Moment]
    holds: Ints
    firsts: list[int]
    order: Ints

    @staticmethod
    def of(row: Row) -> "Plan":
        """The plan of a row that has a label for the language model."""
        assert not row.document.any(), "documents are written in rows of their own"
        labels = row.labels[LANGUAGE_MODEL]
        times = row.time[labels.slots]
        order = np.argsort(times, kind="stable")
        holds = np.full(len(row), -1, dtype=np.int64)
        for number, label in enumerate(order):
            holds[(row.shows == labels.answers[label]) & (row.time > times[label])] = number
        holds[labels.slots] = np.where(row.shows[labels.slots] == labels.answers, -1, holds[labels.slots])
        clock, firsts = np.unique(times[order], return_index=True)
        return Plan(row, _moments(row, labels.slots[order], clock), holds, firsts.tolist(), order)

    @property
    def size(self) -> int:
        """M."""
        return len(self.order)


def _moments(row: Row, asked: Ints, clock: Ints) -> list[Moment]:
    """The moments of a row at the times of `clock`, given the slots that are asked [M]."""
    found: list[Moment] = []
    news = [np.flatnonzero((row.time > before) & (row.time <= now)) for before, now in _pairs(clock)]
    begins = [int(row.time[new].min()) for new in news]
    remembered = -1  # until when something that was read can be seen
    for number, (new, now) in enumerate(zip(news, clock, strict=True)):
        mine = asked[row.time[asked] == now]
        slots = np.concatenate((np.setdiff1d(new, mine), mine))
        following = begins[number + 1] if number + 1 < len(begins) else FOREVER
        kept = row.until[slots] > following
        found.append(Moment(slots, len(mine), kept, remembered <= begins[number]))
        remembered = max([remembered, *row.until[slots][kept].tolist()])
    return found


def _pairs(clock: Ints) -> list[tuple[int, int]]:
    return list(zip([-1, *clock[:-1].tolist()], clock.tolist(), strict=True))


@dataclass
class Sentence:
    """How far one sentence is: the moment that was read last, and answers that are written.

    `leaving`: columns of the cache, and the time from which on nobody sees them.
    """

    plan: Plan
    moment: int = 0
    count: int = 0
    leaving: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether the next answer needs another moment to be read."""
        firsts, following = self.plan.firsts, self.moment + 1
        return following < len(firsts) and self.count == firsts[following]

    @property
    def place(self) -> int:
        """The next answer's place among those of its moment, counted from the last one backwards, below 0."""
        asked = self.plan.moments[self.moment].asked
        return min(self.count - self.plan.firsts[self.moment] - asked, -1)


@dataclass
class Planned:
    """The state of R rows: their cache, answers [R, M] so far, and states [R, q, D] of the moment that was read last.

    Whoever calls a method gives the old state up.
    """

    cache: Cache
    sentences: list[Sentence]
    tokens: Tensor
    hidden: Tensor

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Planned":
        """Row r continues row `rows[r]` [R']; only `sentences` [N'] stay, in that order (None: all)."""
        stay = self.sentences if sentences is None else [self.sentences[place] for place in sentences.tolist()]
        return Planned(self.cache.reordered(rows, sentences), stay, self.tokens[rows], self.hidden[rows])

    def joined(self, other: "Planned") -> "Planned":
        """With the sentences of `other`, which have as many rows each, after those of this state."""
        tokens = _stacked(self.tokens, other.tokens, left=False)
        hidden = _stacked(self.hidden, other.hidden, left=True)
        return Planned(self.cache.joined(other.cache), self.sentences + other.sentences, tokens, hidden)


class Read(NamedTuple):
    """Slots that sentences read next, [N, Q] each: those asked stand at the end; padding is of no document."""

    ids: Tensor
    holds: Tensor
    positions: Tensor
    segments: Tensor
    inner: Tensor
    document: Tensor
    time: Tensor
    until: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Moments:
    """An encoder in evaluation mode that writes what rows ask for, of a vocabulary of so many entries."""

    encoder: Encoder
    vocabulary: int
    pad: int

    @property
    def end(self) -> int:
        """What follows the last answer."""
        return self.vocabulary

    @torch.no_grad()
    def start(self, plans: Sequence[Plan]) -> tuple[Tensor, Planned]:
        """The logits [N, V + 1] of the first answer to each plan, and the state."""
        sentences = [Sentence(plan) for plan in plans]
        read, asked = self._read(sentences), max(plan.moments[0].asked for plan in plans)
        hidden, layers = self._full(read, read.ids, asked)
        weight, (rows, width) = self.encoder.head.bias, read.ids.shape
        cache = Cache.empty(self.encoder.config, rows, width + ROOM, dtype=weight.dtype, device=weight.device)
        cache.fill(0, layers, torch.full((rows,), width, device=weight.device))
        cache.positions[:, :width] = read.positions
        cache.seen[:, 0, :width] = read.kept
        columns = torch.arange(width, device=weight.device).expand(rows, 1, -1)
        for number, sentence in enumerate(sentences):
            _note(sentence, columns[number], read.kept[number], read.until[number])
        tokens = torch.zeros(rows, max(plan.size for plan in plans), dtype=torch.long, device=weight.device)
        state = Planned(cache, sentences, tokens, hidden)
        return self._logits(state), state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: Planned) -> tuple[Tensor, Planned]:
        """The answers [R] just chosen give the logits [R, V + 1] of the next ones and the state after them."""
        beams = len(tokens) // len(state.sentences)
        counts = torch.tensor([sentence.count for sentence in state.sentences], device=tokens.device)
        # What an impossible output holds need not be a token.
        state.tokens.scatter_(1, counts.repeat_interleave(beams)[:, None], tokens.clamp(max=self.end - 1)[:, None])
        for sentence in state.sentences:
            sentence.count += 1
        if any(sentence.due for sentence in state.sentences):
            self._go_on(state, beams)
        return self._logits(state), state

    @torch.no_grad()
    def looked(self, plans: Sequence[Plan]) -> list[Tensor]:
        """What is asked at the first moment of each plan, at once: log-probabilities of the likeliest tokens [q]."""
        _, state = self.start(plans)
        logits = self.encoder.logits(state.hidden).float()[..., : self.vocabulary]
        best = logits.amax(-1) - logits.logsumexp(-1)
        return [row[len(row) - plan.moments[0].asked :] for row, plan in zip(best, plans, strict=True)]

    def _go_on(self, state: Planned, beams: int) -> None:
        """Reads the next moment of every sentence whose moment is over."""
        due = [sentence if sentence.due else None for sentence in state.sentences]
        alone = True
        for number, sentence in enumerate(due):
            if sentence is not None:
                sentence.moment += 1
                moment = sentence.plan.moments[sentence.moment]
                alone = alone and moment.alone and not moment.kept.any()
                _leave(sentence, state.cache.seen[number])
        read = self._read(due)
        asked = max(sentence.plan.moments[sentence.moment].asked for sentence in due if sentence is not None)
        rows = Read(*(part.repeat_interleave(beams, 0) for part in read))
        written = state.tokens.gather(1, rows.holds.clamp(min=0))
        ids = torch.where(rows.holds < 0, rows.ids, written)
        if alone:
            hidden = self._full(rows, ids, asked)[0]
        else:
            self._note_columns(state, due, read, rows.positions)
            hidden, _ = self.encoder.step(
                ids,
                rows.positions,
                rows.segments,
                Slots(rows.document, rows.time, rows.until),
                state.cache,
                kept=rows.kept,
                asked=asked,
                inner=rows.inner,
            )
        fresh = torch.tensor([sentence is not None for sentence in due], device=ids.device).repeat_interleave(beams)
        width = max(asked, state.hidden.shape[1])
        old, new = (functional.pad(part, (0, 0, width - part.shape[1], 0)) for part in (state.hidden, hidden))
        state.hidden = torch.where(fresh[:, None, None], new, old)[:, -_widest(state.sentences) :]

    def _full(self, read: Read, ids: Tensor, asked: int) -> tuple[Tensor, list[KeysValues]]:
        """A full pass over rows [R, Q]: states [R, q, D] of the last q = `asked` slots, and keys and values."""
        rows, width = ids.shape
        wanted = (torch.arange(rows)[:, None] * width + torch.arange(width - asked, width)).flatten().to(ids.device)
        slots = Slots(read.document, read.time, read.until)
        hidden, layers = self.encoder(ids, read.positions, read.segments, slots, wanted, inner=read.inner)
        return hidden.view(rows, asked, -1), layers

    def _read(self, sentences: Sequence[Sentence | None]) -> Read:
        """The slots of each sentence's moment, padded to one width; a sentence that is None reads padding."""
        moments = [None if one is None else one.plan.moments[one.moment] for one in sentences]
        asked = max(moment.asked for moment in moments if moment is not None)
        width = asked + max(len(moment.slots) - moment.asked for moment in moments if moment is not None)
        fillers = (self.pad, -1, 0, 0, 0, PADDING, 0, FOREVER, False)
        parts = [np.full((len(sentences), width), filler) for filler in fillers]
        for number, (sentence, moment) in enumerate(zip(sentences, moments, strict=True)):
            if sentence is None or moment is None:
                continue
            row, others = sentence.plan.row, len(moment.slots) - moment.asked
            places = np.concatenate((np.arange(others), np.arange(width - moment.asked, width)))
            inner = np.zeros(len(row), dtype=np.int64) if row.inner is None else row.inner
            told = (row.ids, sentence.plan.holds, row.positions, row.segments, inner, row.document, row.time, row.until)
            for table, values in zip(parts, [*(column[moment.slots] for column in told), moment.kept], strict=True):
                table[number, places] = values
        device = self.encoder.head.bias.device
        return Read(*(torch.from_numpy(part).to(device) for part in parts))

    def _note_columns(
        self, state: Planned, sentences: Sequence[Sentence | None], read: Read, positions: Tensor
    ) -> None:
        """Remembers which columns of the cache the slots at `positions` [R, Q] take that will leave it."""
        if not (read.kept & (read.until < FOREVER)).any():
            return
        columns = state.cache.place(positions).columns
        for number, sentence in enumerate(sentences):
            if sentence is not None:
                _note(sentence, columns[number], read.kept[number], read.until[number])

    def _logits(self, state: Planned) -> Tensor:
        """The logits [R, V + 1] of the next answers; after the last one, of nothing but the end."""
        device = state.hidden.device
        beams = len(state.hidden) // len(state.sentences)
        places = torch.tensor([sentence.place for sentence in state.sentences], device=device)
        rows = torch.arange(len(state.hidden), device=device)
        hidden = state.hidden[rows, places.repeat_interleave(beams) + state.hidden.shape[1]]
        logits = self.encoder.logits(hidden).float()[:, : self.vocabulary]
        done = torch.tensor([one.count >= one.plan.size for one in state.sentences], device=device)
        done = done.repeat_interleave(beams)[:, None]
        end = torch.where(done, 0.0, float("-inf"))
        return torch.cat((logits.masked_fill(done, float("-inf")), end), 1)


def _note(sentence: Sentence, columns: Tensor, kept: Tensor, until: Tensor) -> None:
    """Remembers those of `columns` [B, Q] whose slots are `kept` [Q], but not for ever.

    What a row keeps for a time it keeps until one moment, or had from the beginning: so no column that a beam gave up,
    and another token took, is given up too soon.
    """
    for time in torch.unique(until[kept & (until < FOREVER)]).tolist():
        sentence.leaving.append((time, columns[:, kept & (until == time)].flatten()))


def _leave(sentence: Sentence, seen: Tensor) -> None:
    """No beam sees any more, in `seen` [B, C], what the moment that is about to be read cannot."""
    plan = sentence.plan
    now = int(plan.row.time[plan.moments[sentence.moment].slots].min())
    for until, columns in sentence.leaving:
        if until <= now:
            seen[:, columns] = False
    sentence.leaving = [one for one in sentence.leaving if one[0] > now]


def _widest(sentences: Sequence[Sentence]) -> int:
    """Most answers that are asked for at once."""
    return max(sentence.plan.moments[sentence.moment].asked for sentence in sentences)


def _stacked(first: Tensor, second: Tensor, *, left: bool) -> Tensor:
    """One tensor above the other, [R, X, ...] both, padded on the left or right of X to the wider one."""
    width = max(first.shape[1], second.shape[1])
    parts = []
    for one in (first, second):
        sides = (width - one.shape[1], 0) if left else (0, width - one.shape[1])
        parts.append(functional.pad(one, (*(0, 0) * (one.dim() - 2), *sides)))
    return torch.cat(parts)
