"""Log-probabilities of given targets: what `generate` would have printed for them, in one full pass.

A target is scored under the row that decoding computes: for `pseudo` and `masked` models every token at a [MASK] that
sees the source and the tokens before it, for `causal` models at the token before it; to a `next-token` model the two
are one text.

Shapes: B rows, T tokens, X targets of a batch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from unilmctl.errors import DataError, UsageError
from unilmctl.generation.generator import continues, frame_of, reading_of
from unilmctl.generation.recurrence import scores_in_pieces
from unilmctl.generation.room import READING, Room
from unilmctl.model import Encoder
from unilmctl.objectives import Corruption, build
from unilmctl.rows import LANGUAGE_MODEL, Example, Labels, Row, pad
from unilmctl.search import SUM, Scoring
from unilmctl.tokens import Tokenizer
from unilmctl.visibility import Slots
from unilmctl.weights import ModelCard

CLEAN = Corruption(target=0.0, random=0.0, keep=0.0, source=0.0)
ROW = {"mask": "pseudo", "next": "causal"}


class Scored(NamedTuple):
    """`score` after length normalisation; log-probabilities of every target token and of the end token after them."""

    score: float
    token_scores: list[float]


class Scorer:
    """A model, ready to score. `max_length` must be that of `generate` for sources to be cut alike.

    With a `memory` texts are read in pieces of so many tokens (see `recurrence`), of any length where a model has no
    table of positions.
    """

    def __init__(
        self,
        encoder: Encoder,
        card: ModelCard,
        tokenizer: Tokenizer,
        *,
        scoring: Scoring = SUM,
        max_length: int | None = None,
        batch_tokens: int = 16384,
        memory: int | None = None,
    ) -> None:
        """UsageError and ModelError as in `Generator`, and for a `memory` where the model does not go on with texts."""
        self.encoder = encoder.eval()
        self.scoring = scoring
        self.room = Room(batch_tokens, READING)
        self.frame = frame_of(encoder, card, tokenizer.roles, max_length)
        self.continues = continues(card)
        if memory is not None and not self.continues:
            raise UsageError("a memory is for models of running text, trained with next-token", "leave --memory out")
        self.memory = memory
        self._objective = build(ROW[reading_of(card)], CLEAN)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """The score of each target given its source, both as token ids without special tokens.

        DataError when a target does not fit into the model's positions.
        """
        return self.score_rows([self.row(source, target) for source, target in pairs])

    def score_rows(self, rows: list[Row]) -> list[Scored]:
        """The score of each row that `row` made."""
        if self.memory is not None:
            return [self._scored(scores_in_pieces(self.encoder, row, self.memory)) for row in rows]
        return self.room.worked([len(row) for row in rows], lambda places: self._batch([rows[i] for i in places]))

    def row(self, source: Sequence[int], target: Sequence[int]) -> Row:
        """The row whose labels are every token of the target and its end; DataError when it does not fit."""
        example = Example(np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64))
        if self.continues:
            made = self._continued(example)
        else:
            frame = replace(self.frame, max_target=len(target) + 1)
            made = self._objective(example, frame, np.random.default_rng(0))
        positions = self.encoder.config.positions
        endless = self.memory is not None and self.encoder.embeddings.position is None
        if not endless and made.positions.max() >= positions:
            size = int(made.positions.max()) + 1
            raise DataError(f"source and target take {size} positions, the model has {positions}", "score less at once")
        return made

    def _continued(self, example: Example) -> Row:
        """The row of the whole text, whose labels are those of the target."""
        beginning = self.frame.cut(example.source, special=2)
        text = np.concatenate((beginning, example.target))
        frame = replace(self.frame, max_target=len(text) + 1, separator_in="target")
        row = self._objective(Example(beginning[:0], text), frame, np.random.default_rng(0))
        labels, new = row.labels[LANGUAGE_MODEL], slice(len(beginning), None)
        asked = Labels(labels.slots[new], labels.targets[new], labels.answers[new])
        return replace(row, labels={LANGUAGE_MODEL: asked})

    @torch.inference_mode()
    def _batch(self, rows: list[Row]) -> list[Scored]:
        batch, device = pad(rows, pad_id=self.frame.pad), self.encoder.head.bias.device
        slots = Slots(*(part.to(device) for part in batch.slots))
        hidden, _ = self.encoder(*(part.to(device) for part in (batch.ids, batch.positions, batch.segments)), slots)
        labels, targets = (part.to(device) for part in batch.labels[LANGUAGE_MODEL][:2])
        logits = self.encoder.logits(hidden.flatten(0, 1)[labels]).float()  # [X, V]
        chosen = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
        counts = [len(row.labels[LANGUAGE_MODEL].slots) for row in rows]
        return [self._scored(part.tolist()) for part in torch.split(chosen, counts)]

    def _scored(self, steps: list[float]) -> Scored:
        return Scored(sum(steps) / self.scoring.divisor(len(steps)), steps)
