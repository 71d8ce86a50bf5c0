"""Which words of the source an output looks at, read off the last layer's attention.

Shapes: N sentences, B outputs a sentence, R = N x B rows in sentence-major order, S words of the longest source.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unilmctl.decoding.stepping import Decoder, Written
from unilmctl.errors import UsageError
from unilmctl.rows import Ints


@dataclass(frozen=True)
class Attending:
    """A decoder whose steps tell how they look at the source. UsageError where the first one cannot tell."""

    decoder: Decoder

    def __post_init__(self) -> None:
        if self.decoder.reading == "next" and self.decoder.frame.separator_in == "source":
            raise UsageError(
                "attention is not known for a model that predicts the first token while it reads the source",
                "it is known for pseudo, masked, and causal with separator_in: target",
            )

    @staticmethod
    def of(decoder: Decoder) -> "Attending":
        """A decoder that remembers attention."""
        return Attending(replace(decoder, attention=True))

    def shares(self, state: Written) -> Tensor:
        """How the attention of the last step is shared among the words of the source, mean of the heads: [R, S].

        Special tokens do not count. The shares of a row sum to 1; they are NaN where its source has no word.
        """
        assert state.attention is not None, "the decoder was asked for attention"
        words = state.sizes - (1 if self.decoder.reading == "next" else 2)
        width = int(words.max())
        weights = state.attention[:, 1 : 1 + width].float().view(len(words), -1, width)
        absent = torch.arange(width, device=words.device) >= words[:, None, None]
        weights = weights.masked_fill(absent, 0)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return weights.masked_fill(absent, torch.nan).flatten(0, 1)

    @torch.inference_mode()
    def align(
        self, sources: Sequence[Ints], outputs: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[list[int | None]]]:
        """For each token of each source's outputs the place of the source's word that it looks at most.

        None where the source has no word. Sources and outputs have no special tokens.
        """
        beams = max(map(len, outputs), default=0)
        if beams == 0:
            return [[] for _ in outputs]
        padded = [ids for some in outputs for ids in [*some, *[()] * (beams - len(some))]]
        places = self._places(list(sources), padded, beams).view(len(sources), beams, -1).tolist()
        return [
            [self._within(source, row[: len(ids)]) for ids, row in zip(some, rows, strict=False)]
            for source, some, rows in zip(sources, outputs, places, strict=True)
        ]

    def _places(self, sources: list[Ints], outputs: list[Sequence[int]], beams: int) -> Tensor:
        """Places of words within the sources as they are read: [R, T], anything after the end of an output."""
        _, state = self.decoder.start(sources)
        state = state.reordered(torch.arange(len(sources), device=state.sizes.device).repeat_interleave(beams))
        found = []
        longest = max(map(len, outputs))
        for time in range(longest):
            shares = self.shares(state).nan_to_num(-1)
            found.append(shares.argmax(1) if shares.shape[1] else shares.new_zeros(len(shares), dtype=torch.long))
            if time + 1 < longest:
                tokens = [ids[time] if time < len(ids) else self.decoder.frame.separator for ids in outputs]
                _, state = self.decoder.step(torch.tensor(tokens, device=state.sizes.device), state)
        return torch.stack(found, 1).cpu() if found else torch.zeros(len(outputs), 0, dtype=torch.long)

    def _within(self, source: Ints, places: list[int]) -> list[int | None]:
        """Places within a source of words that are read; the first ones may have been cut off."""
        if len(source) == 0:
            return [None] * len(places)
        frame, special = self.decoder.frame, 1 if self.decoder.reading == "next" else 2
        cut = len(source) - len(frame.cut(source, special=special)) if frame.truncate == "head" else 0
        return [cut + place for place in places]
