"""Gaps of lines, filled by a model that was pre-trained to: which row a line becomes, and what comes of it.

| order | answers are chosen |
|---|---|
| `surest` | one by one, first where the model is surest while it knows none of them |
| `left-to-right` | one by one |
| `gaps` | gap by gap, the tokens of a gap at once: the surest gap first |
| `at-once` | all at once, each as if it were the only one |

Shapes: M answers of a line.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from unilmctl.decoding import Moments, Plan, Planned
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.generation.budget import Intake, budgeted
from unilmctl.generation.gapped import Gapped
from unilmctl.generation.model import Opened
from unilmctl.generation.options import GenerateOptions
from unilmctl.generation.room import Room
from unilmctl.generation.strategy import scoring_of, strategy_of
from unilmctl.objectives import GAP_ROWS, gap_row
from unilmctl.rows import LANGUAGE_MODEL, Floats, Frame, Ints, Row
from unilmctl.search import Hypothesis, Rules, Started, Task, run
from unilmctl.weights import ModelCard

ORDERS = ("surest", "left-to-right", "gaps", "at-once")

LOGITS = 1 << 23
"""Most scores over the vocabulary that one step gives."""


class Gap(NamedTuple):
    """What was put into a gap: token ids, and the log-probability of each where it was chosen."""

    ids: list[int]
    token_scores: list[float]


class Filling(NamedTuple):
    """One way to fill all gaps of a line, and its score: the sum of all log-probabilities."""

    gaps: list[Gap]
    score: float


def filling_objective(card: ModelCard, objective: str | None) -> tuple[str, tuple[int, int]]:
    """By which rows a model fills gaps, and the segments of these rows; a model of unknown origin is `bidirectional`.

    UsageError for an objective that fills none, ModelError for a model that was taught none.
    """
    if objective is not None and objective not in GAP_ROWS:
        raise UsageError(f"'{objective}' fills no gaps", f"--objective takes {', '.join(GAP_ROWS)} with --fill")
    known = {"bidirectional": [0, 1]} if card.fills is None else card.fills
    name = objective or next(iter(known), None)
    if name is None:
        raise ModelError("the model was not trained to fill gaps", "--objective NAME tries it all the same")
    source, target = known.get(name, [0, 1])
    return name, (source, target)


class Filler:
    """A model, ready to fill gaps by the rows of the objective `name`.

    The encoder is put into evaluation mode; its weights should have the options' number format (`Opened.packed`).
    """

    def __init__(self, opened: Opened, options: GenerateOptions, *, objective: str | None, order: str) -> None:
        """UsageError and ModelError as in `filling_objective`."""
        config, roles = opened.encoder.config, opened.tokenizer.roles
        self.name, segments = filling_objective(opened.card, objective)
        source, target = (min(segment, max(config.segments - 1, 0)) for segment in segments)
        self.frame = Frame(
            roles.pad, roles.start, roles.separator, roles.mask, config.vocabulary, source, target, config.positions
        )
        self.tokenizer = opened.tokenizer
        self.moments = Moments(opened.encoder.eval(), config.vocabulary, roles.pad)
        self.options, self.order = options, order
        self.room, self.width = Room(options.batch_tokens), config.hidden
        self.forbid = (roles.pad, roles.start, roles.separator, roles.mask, *_forbidden(opened, options))

    def check(self, line: Gapped) -> None:
        """DataError for a line that is longer than the model's positions."""
        size = len(line.ids) + 2
        if size > self.frame.max_source:
            message = f"takes {size} tokens, special ones counted, and the model has {self.frame.max_source} positions"
            raise DataError(message, "fill the gaps of a shorter text")

    def fill(self, lines: Sequence[Gapped], keys: Sequence[int]) -> list[list[Filling]]:
        """Ways to fill the gaps of each line, the best first; every line has one at least.

        `keys` name the lines for sampling.
        """
        plans = self._plans([self._text(line) for line in lines])
        costs = [self._cost(plan) for plan in plans]
        found: dict[int, list[Hypothesis]] = {}

        def decode(places: list[int], budget: int) -> Iterator[list[tuple[int, list[Hypothesis]]]]:
            return self._searched([plans[place] for place in places], [keys[place] for place in places], budget)

        for batch in self.room.decoded(costs, decode):
            found.update(batch)
        return [
            [_filling(line, plan, hypothesis) for hypothesis in found[place]]
            for place, (line, plan) in enumerate(zip(lines, plans, strict=True))
        ]

    def _text(self, line: Gapped) -> Ints:
        return np.concatenate(([self.frame.start], line.ids, [self.frame.separator])).astype(np.int64)

    def _cost(self, plan: Plan) -> int:
        """What `batch_tokens` counts: the tokens that a line keeps busy."""
        return max(len(moment.slots) for moment in plan.moments) * self.options.outputs

    def _row(self, text: Ints, order: list[Ints]) -> Row:
        return gap_row(self.name, text, order, self.frame)

    @torch.inference_mode()
    def _plans(self, texts: list[Ints]) -> list[Plan]:
        """The plan of each text, in the order that the options ask for."""
        places = [np.flatnonzero(text == self.frame.mask) for text in texts]
        sureness: list[Floats] = [np.zeros(len(some)) for some in places]
        if self.order in ("surest", "gaps"):
            whole = [Plan.of(self._row(text, [some])) for text, some in zip(texts, places, strict=True)]
            for batch in budgeted([len(plan.row) for plan in whole], self.options.batch_tokens):
                for place, sure in zip(batch, self.moments.looked([whole[place] for place in batch]), strict=True):
                    sureness[place] = sure.cpu().numpy()
        orders = [ordered(some, sure, self.order) for some, sure in zip(places, sureness, strict=True)]
        return [Plan.of(self._row(text, order)) for text, order in zip(texts, orders, strict=True)]

    @torch.inference_mode()
    def _searched(
        self, plans: list[Plan], keys: list[int], budget: int
    ) -> Iterator[list[tuple[int, list[Hypothesis]]]]:
        places = {key: place for place, key in enumerate(keys)}
        most = max(1, LOGITS // (self.options.outputs * self.frame.vocabulary))
        intake = Intake([self._cost(plan) for plan in plans], budget, most)

        def arrivals(live: int) -> Started[Planned] | None:
            starting = intake.take()
            if not starting:
                return None
            first, state = self.moments.start([plans[place] for place in starting])
            return Started([Task(keys[place]) for place in starting], first, state)

        longest = 1 + max(plan.size for plan in plans)
        rules = Rules(end=self.moments.end, max_length=longest, forbid=self.forbid)
        scoring = scoring_of(self.options)
        strategy = strategy_of(self.options, rules, scoring, width=self.width, phrases=False, attention=None)
        for key, hypotheses in run(strategy, self.moments.step, arrivals):
            intake.end(places[key])
            yield [(places[key], hypotheses)]


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


def _filling(line: Gapped, plan: Plan, hypothesis: Hypothesis) -> Filling:
    """The answers of a hypothesis in the gaps that they are for."""
    answers = plan.row.labels[LANGUAGE_MODEL].answers[plan.order] - 1  # without [CLS]
    known = dict(zip(answers.tolist(), zip(hypothesis.ids, hypothesis.token_scores, strict=False), strict=True))
    gaps = [[known[place] for place in gap.tolist()] for gap in line.gaps]
    return Filling([Gap([token for token, _ in gap], [score for _, score in gap]) for gap in gaps], hypothesis.score)


def _forbidden(opened: Opened, options: GenerateOptions) -> list[int]:
    found = []
    for token in options.forbid:
        number = opened.tokenizer.token_id(token)
        if number is None:
            raise UsageError(f"forbid: the vocabulary has no token '{token}'")
        found.append(number)
    return found
