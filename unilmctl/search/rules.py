"""What may be written: forbidden tokens, length limits, repeated n-grams, forced beginnings.

Shapes: N sentences, B beams a sentence, V vocabulary, t tokens written so far, P tokens of a prefix.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NEVER = float("-inf")


@dataclass(frozen=True)
class Rules:
    """Limits of an output.

    `max_length` counts the end token, `min_length` does not. No n-gram of `no_repeat_ngram` tokens is written twice (0:
    no limit), unless one of its tokens is in `no_repeat_ignore`.
    """

    end: int
    max_length: int
    min_length: int = 0
    no_repeat_ngram: int = 0
    no_repeat_ignore: tuple[int, ...] = ()
    forbid: tuple[int, ...] = ()

    def apply(self, logits: Tensor, written: Tensor, prefix: "Prefix | None" = None) -> None:
        """Takes the tokens that may not follow `written` [N, B, t] out of `logits` [N, B, V], in place."""
        time = written.shape[2]
        forced = self._forced(time, logits.shape[0], prefix)
        chosen = None if forced is None else logits.gather(2, forced.tokens.expand(logits.shape[:2])[..., None])
        if self.forbid:
            logits[:, :, list(self.forbid)] = NEVER
        if time < self.min_length:
            logits[:, :, self.end] = NEVER
        if self.no_repeat_ngram:
            rows, tokens = repeated(written.flatten(0, 1), self.no_repeat_ngram, self.no_repeat_ignore)
            logits.view(-1, logits.shape[2])[rows, tokens] = NEVER
        if forced is not None and chosen is not None:
            logits[forced.active] = NEVER
            index = forced.tokens.expand(logits.shape[:2])[..., None]
            logits.scatter_(2, index, torch.where(forced.active[:, None, None], chosen, logits.gather(2, index)))

    def _forced(self, time: int, sentences: int, prefix: "Prefix | None") -> "_Forced | None":
        """The one token each sentence must write now: that of its prefix, or the end where there is no more room."""
        last = time == self.max_length - 1
        if prefix is None or time >= prefix.tokens.shape[1]:
            if not last:
                return None
            ends = torch.full((sentences, 1), self.end)
            return _Forced(ends, torch.ones(sentences, dtype=torch.bool))
        active = prefix.lengths > time
        tokens = torch.where(active, prefix.tokens[:, time], self.end)
        return _Forced(tokens[:, None], active | last)


class _Forced(NamedTuple):
    """The token [N, 1] that a sentence must write, where `active` [N]."""

    tokens: Tensor
    active: Tensor


class Prefix(NamedTuple):
    """How each output must begin: tokens [N, P], padded on the right, and lengths [N]."""

    tokens: Tensor
    lengths: Tensor

    def select(self, sentences: Tensor) -> "Prefix":
        """The prefixes of these sentences only."""
        return Prefix(self.tokens[sentences], self.lengths[sentences])

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


def repeated(written: Tensor, size: int, ignore: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Which tokens would repeat an n-gram of `size` tokens in each row of `written` [R, t].

    An n-gram with a token of `ignore` in it may repeat. Returns matching rows and tokens, [X] and [X].
    """
    time = written.shape[1]
    if time < size:
        nothing = written.new_zeros(0)
        return nothing, nothing
    windows = written.unfold(1, size, 1)  # [R, t - size + 1, size]
    tail = written[:, time - size + 1 :]  # [R, size - 1]
    again = (windows[:, :, :-1] == tail[:, None]).all(-1)
    if ignore:
        exempt = torch.tensor(ignore, device=written.device)
        again &= ~torch.isin(tail, exempt).any(-1, keepdim=True) & ~torch.isin(windows[:, :, -1], exempt)
    rows, places = again.nonzero(as_tuple=True)
    return rows, windows[rows, places, -1]
