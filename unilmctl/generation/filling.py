"""Gaps of lines, filled by a model that was pre-trained to.

| order | what is chosen |
|---|---|
| `surest` | one token after another, first where the model is surest while it knows none of them |
| `left-to-right` | one token after another |
| `gaps` | gap by gap, the tokens of a gap at once: the surest gap first |
| `at-once` | all at once, each as if it were the only one |
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from unilmctl.decoding import Moments, Spans
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.generation.budget import Intake
from unilmctl.generation.gapped import Gapped
from unilmctl.generation.model import Opened
from unilmctl.generation.options import MAX_LENGTH, GenerateOptions
from unilmctl.generation.room import Room
from unilmctl.generation.strategy import scoring_of, strategy_of
from unilmctl.generation.ways import ByMark, BySpan, Gap, Way
from unilmctl.objectives import GAP_ROWS
from unilmctl.rows import Frame
from unilmctl.search import Hypothesis, Started, Task, run
from unilmctl.weights import ModelCard

ORDERS = ("surest", "left-to-right", "gaps", "at-once")

SPANS = "infilling"
"""The objective that does not know how long a gap is."""

WITH_ORDERS = {
    SPANS: ("left-to-right",),
    "infilling-in-place": ("left-to-right",),
    "block-diffusion": ("left-to-right", "at-once"),
}
"""Orders of objectives that do not know all of them, the usual one first; `block-diffusion` fills the gaps of one block
at once."""

FILLING = (*GAP_ROWS, SPANS)
"""Objectives whose models fill gaps."""

LOGITS = 1 << 23
"""Most scores over the vocabulary that one step gives."""


class Filling(NamedTuple):
    """One way to fill all gaps of a line, and its score: the sum of all log-probabilities, by length if asked for."""

    gaps: list[Gap]
    score: float


def filling_objective(card: ModelCard, objective: str | None) -> tuple[str, tuple[int, int]]:
    """By which rows a model fills gaps, and the segments of these rows; a model of unknown origin is `bidirectional`.

    UsageError for an objective that fills no gaps, ModelError for a model that was taught none.
    """
    if objective is not None and objective not in FILLING:
        raise UsageError(f"'{objective}' fills no gaps", f"--objective takes {', '.join(FILLING)} with --fill")
    known = {"bidirectional": [0, 1]} if card.fills is None else card.fills
    name = objective or next(iter(known), None)
    if name is None:
        raise ModelError("the model was not trained to fill gaps", "--objective NAME tries it all the same")
    source, target = known.get(name, [0, 1])
    return name, (source, target)


class Filler:
    """A model, ready to fill gaps as the objective `name` does.

    The encoder is put into evaluation mode; its weights should have the options' number format (`Opened.packed`).
    """

    def __init__(self, opened: Opened, options: GenerateOptions, *, objective: str | None, order: str | None) -> None:
        """UsageError and ModelError as in `filling_objective`; UsageError for an order that the objective cannot have.

        None: the usual order.
        """
        config, roles = opened.encoder.config, opened.tokenizer.roles
        self.name, segments = filling_objective(opened.card, objective)
        source, target = (min(segment, max(config.segments - 1, 0)) for segment in segments)
        self.frame = Frame(
            roles.pad, roles.start, roles.separator, roles.mask, config.vocabulary, source, target, config.positions
        )
        self.tokenizer, self.options = opened.tokenizer, options
        self.way = _way(opened, self.frame, self.name, _order(self.name, order), options)
        self.room, self.width = Room(options.batch_tokens), config.hidden
        self.forbid = (roles.pad, roles.start, roles.mask, *_forbidden(opened, options))

    def check(self, line: Gapped) -> None:
        """DataError for a line that is longer than the model's positions."""
        size = self.way.size(line)
        if size > self.frame.max_source:
            message = f"takes {size} tokens, special ones counted, and the model has {self.frame.max_source} positions"
            raise DataError(message, "fill the gaps of a shorter text")

    @torch.inference_mode()
    def fill(self, lines: Sequence[Gapped], keys: Sequence[int]) -> list[list[Filling]]:
        """Ways to fill the gaps of each line, the best first; every line has one at least.

        `keys` name the lines for sampling.
        """
        plans = self.way.plans(lines, self.options.batch_tokens)
        found: dict[int, list[Hypothesis]] = {}

        def decode(places: list[int], budget: int) -> Iterator[list[tuple[int, list[Hypothesis]]]]:
            return self._searched([plans[place] for place in places], [keys[place] for place in places], budget)

        for batch in self.room.decoded(self._costs(plans), decode):
            found.update(batch)
        return [
            [Filling(self.way.gaps(plan, line, one), one.score) for one in found[place]]
            for place, (plan, line) in enumerate(zip(plans, lines, strict=True))
        ]

    def _costs(self, plans: list[Any]) -> list[int]:
        """What `batch_tokens` counts: the tokens that each line keeps busy."""
        return [self.way.cost(plan) * self.options.outputs for plan in plans]

    def _searched(self, plans: list[Any], keys: list[int], budget: int) -> Iterator[list[tuple[int, list[Hypothesis]]]]:
        places = {key: place for place, key in enumerate(keys)}
        most = max(1, LOGITS // (self.options.outputs * self.frame.vocabulary))
        intake = Intake(self._costs(plans), budget, most)

        def arrivals(live: int) -> Started[Any] | None:
            starting = intake.take()
            if not starting:
                return None
            first, state = self.way.start([plans[place] for place in starting])
            return Started([Task(keys[place]) for place in starting], first, state)

        rules, scoring = self.way.rules(plans, self.forbid), scoring_of(self.options)
        strategy = strategy_of(self.options, rules, scoring, width=self.width, phrases=False, attention=None)
        for key, hypotheses in run(strategy, self.way.step, arrivals):
            intake.end(places[key])
            yield [(places[key], hypotheses)]


def _way(opened: Opened, frame: Frame, name: str, order: str, options: GenerateOptions) -> Way:
    encoder = opened.encoder.eval()
    if name != SPANS:
        if options.max_length is not None or options.length_penalty or options.length_normalization != "penalty":
            raise UsageError(f"a gap has as many tokens as marks for '{name}'", "options of length are for infilling")
        return ByMark(Moments(encoder, frame.vocabulary, frame.pad), frame, name, order)
    longest = options.max_length or MAX_LENGTH
    inner = encoder.config.inner_positions
    return BySpan(Spans(encoder, frame, min(longest, inner - 2) if inner else longest))


def _order(objective: str, order: str | None) -> str:
    possible = WITH_ORDERS.get(objective, ORDERS)
    if order is not None and order not in possible:
        raise UsageError(f"'{objective}' cannot fill gaps in the order {order}", f"--order {' or '.join(possible)}")
    return order or possible[0]


def _forbidden(opened: Opened, options: GenerateOptions) -> list[int]:
    found = []
    for token in options.forbid:
        number = opened.tokenizer.token_id(token)
        if number is None:
            raise UsageError(f"forbid: the vocabulary has no token '{token}'")
        found.append(number)
    return found
