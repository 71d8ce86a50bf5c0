"""What may be written: forbidden tokens, length limits, repeated words and n-grams, forced beginnings.

Sentences are of any age, so that every one has its own `time`, the number of tokens that its outputs have written. What
is written lies in tensors with room for the maximal length; behind `time` they hold anything.

Shapes: N sentences, B outputs a sentence, V vocabulary, T maximal length, P tokens of a prefix, R rows, t written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

NEVER = float("-inf")

BLOCK = 16
"""Rows whose probabilities are computed together."""

FREE = -1
"""Stands where nothing is forced, in the place of a token."""

NOTHING = -2
"""Stands where nothing was written, in the place of a token."""


class Scores(NamedTuple):
    """Log-probabilities [N, B, V] of the next tokens.

    `ranked` is what to choose by, under the rules; `own` what the model says. They can be one tensor, so that `own`
    is to be read only where `ranked` is not -inf.
    """

    ranked: Tensor
    own: Tensor


@dataclass(frozen=True)
class Rules:
    """Limits of an output.

    `max_length` counts the end token, `min_length` does not. No n-gram of `no_repeat_ngram` tokens is written twice (0:
    no limit), unless one of its tokens is in `no_repeat_ignore`. With a `repetition_penalty` above 1 the logits of
    tokens that an output has written are divided by it where positive, else multiplied (Keskar et al. 2019, arXiv
    1909.05858, section 4.1); outputs are ranked by what comes of it. None of `forbid_phrases` is written, but any part
    of one may be.
    """

    end: int
    max_length: int
    min_length: int = 0
    no_repeat_ngram: int = 0
    no_repeat_ignore: tuple[int, ...] = ()
    forbid: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    forbid_phrases: tuple[tuple[int, ...], ...] = ()

    def forced(self, prefixes: Sequence[Sequence[int]], device: torch.device | None = None) -> Tensor:
        """The tokens [N, T] that must be written: those of the prefixes, the end in the last place, else FREE."""
        rows = [[*prefix, *[FREE] * (self.max_length - 1 - len(prefix)), self.end] for prefix in prefixes]
        assert all(len(row) == self.max_length for row in rows), "a prefix leaves room for the end"
        return torch.tensor(rows, dtype=torch.long, device=device)

    def scores(self, logits: Tensor, written: Tensor, times: Tensor, forced: Tensor) -> Scores:
        """The scores of what follows `written` [N, B, T] at `times` [N], given logits [N, B, V] and `forced` [N, T].

        A ban is a score of -inf and leaves the others as they are. The logits are overwritten.
        """
        ranked = logits
        if self.repetition_penalty != 1:
            ranked = _normalised(_penalised(logits, written, times, self.repetition_penalty))
        own = _normalised(logits)
        self.apply(ranked, written, times, forced)
        return Scores(ranked, own)

    def apply(self, scores: Tensor, written: Tensor, times: Tensor, forced: Tensor) -> None:
        """Puts -inf into `scores` [N, B, V] for all that may not be written; arguments as in `scores`."""
        must = forced.gather(1, times[:, None])[:, 0]
        bound = (must != FREE).nonzero()[:, 0]
        kept = scores[bound, :, must[bound]] if len(bound) else None  # [bound sentences, B]
        for token in self.forbid:
            scores[:, :, token] = NEVER
        if self.min_length:
            scores[(times < self.min_length).nonzero()[:, 0], :, self.end] = NEVER
        if self.no_repeat_ngram:
            lengths = times.repeat_interleave(written.shape[1])
            rows, tokens = repeated(written.flatten(0, 1), self.no_repeat_ngram, self.no_repeat_ignore, lengths)
            scores.view(-1, scores.shape[2])[rows, tokens] = NEVER
        if self.forbid_phrases:
            rows, tokens = _closing(
                self._phrases.to(written.device), last_tokens(written, times, self._phrases.shape[1])
            )
            scores.view(-1, scores.shape[2])[rows, tokens] = NEVER
        if kept is not None:
            scores[bound] = NEVER
            scores[bound, :, must[bound]] = kept

    @cached_property
    def _phrases(self) -> Tensor:
        """The forbidden phrases, each at the right end of its row, after FREE."""
        longest = max(map(len, self.forbid_phrases))
        return torch.tensor([[*[FREE] * (longest - len(phrase)), *phrase] for phrase in self.forbid_phrases])


class Prefix(NamedTuple):
    """How each output must begin: tokens [N, P], padded on the right, and lengths [N]."""

    tokens: Tensor
    lengths: Tensor

    def lists(self) -> list[list[int]]:
        """The tokens of each."""
        return [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]

    @staticmethod
    def of(prefixes: list[list[int]]) -> "Prefix | None":
        """From lists of tokens; None when all of them are empty."""
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        if not lengths.any():
            return None
        tokens = torch.zeros(len(prefixes), int(lengths.max()), dtype=torch.long)
        for row, prefix in zip(tokens, prefixes, strict=True):
            row[: len(prefix)] = torch.tensor(prefix, dtype=torch.long)
        return Prefix(tokens, lengths)


def repeated(
    written: Tensor, size: int, ignore: tuple[int, ...] = (), lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which tokens would repeat an n-gram of `size` tokens in each row of `written` [R, t], or in its first `lengths`.

    An n-gram with a token of `ignore` in it may repeat. Returns matching rows and tokens, [X] and [X].
    """
    if written.shape[1] < size:
        nothing = written.new_zeros(0)
        return nothing, nothing
    if lengths is None:
        lengths = torch.full_like(written[:, 0], written.shape[1])
    windows = written.unfold(1, size, 1)  # [R, t - size + 1, size]
    starts = lengths[:, None] - size + 1  # [R, 1], where the n-gram that is being written began
    places = starts + torch.arange(size - 1, device=written.device)
    tail = written.gather(1, places.clamp(min=0))  # [R, size - 1]
    again = (windows[:, :, :-1] == tail[:, None]).all(-1)
    again &= torch.arange(windows.shape[1], device=written.device) < starts
    if ignore:
        exempt = torch.tensor(ignore, device=written.device)
        again &= ~torch.isin(tail, exempt).any(-1, keepdim=True) & ~torch.isin(windows[:, :, -1], exempt)
    rows, places = again.nonzero(as_tuple=True)
    return rows, windows[rows, places, -1]


def last_tokens(written: Tensor, times: Tensor, count: int) -> Tensor:
    """The last tokens [N, B, count] of what is written [N, B, T] at `times` [N]; NOTHING before the first."""
    places = times[:, None] + torch.arange(-count, 0, device=times.device)  # [N, count]
    tokens = written.gather(2, places.clamp(min=0)[:, None].expand(*written.shape[:2], count))
    return tokens.masked_fill((places < 0)[:, None], NOTHING)


def _closing(phrases: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens would complete one of `phrases` [X, L] after the last L tokens [N, B, L]: rows and tokens."""
    tails = last.flatten(0, 1)[:, None, 1:]  # [R, 1, L - 1]
    heads = phrases[:, :-1]
    rows, found = ((heads == FREE) | (heads == tails)).all(2).nonzero(as_tuple=True)
    return rows, phrases[found, -1]


def _normalised(logits: Tensor) -> Tensor:
    """Log-probabilities in place of logits [N, B, V]."""
    rows = logits.view(-1, logits.shape[-1])
    # New memory for all rows would cost more than the numbers that are put into it.
    for block in torch.split(rows, BLOCK):
        block.copy_(block.log_softmax(-1))
    return logits


def _penalised(logits: Tensor, written: Tensor, times: Tensor, penalty: float) -> Tensor:
    """Logits [N, B, V] with those of the tokens written before made smaller."""
    places = torch.arange(written.shape[2], device=written.device)
    # Behind `time` the last token is named again; one that has written nothing changes nothing.
    places = places.minimum((times[:, None] - 1).clamp(min=0))[:, None].expand_as(written)
    tokens = written.gather(2, places)
    before = logits.gather(2, tokens)
    after = torch.where(before > 0, before / penalty, before * penalty)
    return logits.scatter(2, tokens, torch.where(times[:, None, None] > 0, after, before))
