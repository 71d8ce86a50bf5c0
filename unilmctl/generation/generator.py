"""Token ids in, hypotheses out: as many sources at a time as a token budget allows, whatever the search."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unilmctl.decoding import (
    Attending,
    Decoder,
    Drafting,
    Ensemble,
    Reader,
    Reading,
    Together,
    Written,
    cache_format,
    settle,
)
from unilmctl.errors import ModelError, UsageError
from unilmctl.generation.budget import Intake, budgeted
from unilmctl.generation.model import Opened
from unilmctl.generation.options import MAX_LENGTH, GenerateOptions
from unilmctl.generation.room import Room
from unilmctl.generation.strategy import scoring_of, strategy_of
from unilmctl.generation.wishes import Wishes
from unilmctl.model import Encoder
from unilmctl.objectives import DECODING
from unilmctl.rows import Frame, Ints
from unilmctl.search import (
    Arrivals,
    Follow,
    Hypothesis,
    Phrase,
    Started,
    Task,
    run,
    s2s_ft,
)
from unilmctl.search.step import S
from unilmctl.tokens import Roles, Tokenizer
from unilmctl.weights import ModelCard

LOGITS = 1 << 23
"""Most scores over the vocabulary that one step gives: memory of more than 32 MiB is new, and slow, at every step."""

ALIGNED = 32
"""Sources that are aligned at a time."""

Phrases = Sequence[Phrase]
"""What an output must hold."""

Batch = list[tuple[int, list[Hypothesis]]]
"""The hypotheses of some sources, best first, with the place of each source in the input."""


class Generator:
    """A model, or several together, with options, ready to decode.

    The encoder is put into evaluation mode; its weights should have the options' number format (`Opened.packed`).
    A model that `continues` reads its sources as beginnings of texts, and writes what comes after them.
    Outside `s2s-ft` the padding, start and mask tokens are never written: no model is trained to. `longest_source`:
    most source tokens, special ones not counted, that are read; longer sources are cut.
    """

    def __init__(
        self,
        encoder: Encoder,
        card: ModelCard,
        tokenizer: Tokenizer,
        options: GenerateOptions,
        others: Sequence[Opened] = (),
    ) -> None:
        """`others` write together with the model, whose vocabulary they have: probabilities are averaged.

        UsageError for options that do not fit the model, ModelError for a model that cannot write.
        """
        self.options = options
        self.room = Room(options.batch_tokens)
        self.tokenizer = tokenizer
        self.scoring = scoring_of(options)
        models = [Opened(encoder, card, tokenizer), *others]
        longest = min(_frame(model, options.max_length).max_target for model in models)
        decoders = [_decoder(model, longest, options.dtype) for model in models]
        covers = options.search == "beam" and options.coverage_penalty > 0
        self.attending = Attending.of(decoders[0]) if options.attention or covers else None
        if self.attending is not None and covers:
            decoders[0] = self.attending.decoder
        self.decoder: Reader[Any] = Ensemble(tuple(decoders)) if others else decoders[0]
        self.frame = decoders[0].frame
        self.longest_source = min(map(longest_source, decoders))
        self.wishes = Wishes(options, tokenizer, longest)
        self.rules = self.wishes.rules
        self.continues = continues(card)
        self.width, self.device = encoder.config.hidden, encoder.head.bias.device
        if options.search in ("s2s-ft", "contrastive") and options.outputs > encoder.config.vocabulary:
            what = f"a beam of {options.beam}" if options.search == "s2s-ft" else f"top_k {options.top_k}"
            raise UsageError(f"{what} is larger than the vocabulary ({encoder.config.vocabulary})")
        drafts = options.drafts if options.search == "greedy" else 0
        if drafts and others:
            raise UsageError(f"drafts are verified by one model, not by {len(models)} together", "--drafts 0")
        self.drafting = Drafting(decoders[0], drafts) if drafts else None

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        *,
        keys: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
        phrases: Sequence[Phrases] | None = None,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of every source, best first; an empty list where the options allow none.

        Sources have no special tokens. `keys` name them for sampling (None: by their place): the same seed and key
        give the same draws. `prefixes`: how each output must begin; `phrases`: what it must hold. DataError for
        wishes that cannot be met.
        """
        results: list[list[Hypothesis]] = [[] for _ in sources]
        for batch in self.batches(sources, keys=keys, prefixes=prefixes, phrases=phrases):
            for place, hypotheses in batch:
                results[place] = hypotheses
        return results

    def batches(
        self,
        sources: Sequence[Sequence[int]],
        *,
        keys: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
        phrases: Sequence[Phrases] | None = None,
    ) -> Iterator[Batch]:
        """As `generate`, some sources at a time, in the order in which they are done.

        Sources of like length are decoded together; as soon as some are done, others take their places.
        """
        arrays = [np.asarray(source, dtype=np.int64) for source in sources]
        names = range(len(sources)) if keys is None else keys
        beginnings: Sequence[Sequence[int]] = [()] * len(sources) if prefixes is None else prefixes
        wanted: Sequence[Phrases] = [()] * len(sources) if phrases is None else phrases
        tasks = [self.wishes.task(Task(*one)) for one in zip(names, beginnings, wanted, strict=True)]

        def decode(places: list[int], budget: int) -> Iterator[Batch]:
            some = [arrays[place] for place in places]
            if self.options.search == "s2s-ft":
                return self._s2s_ft(some, budget)
            return self._searched(some, [tasks[place] for place in places], budget)

        found = self.room.decoded(self.costs(arrays), decode)
        yield from self._aligned(found, arrays) if self.options.attention else found

    def costs(self, sources: Sequence[Sequence[int] | Ints]) -> list[int]:
        """What `batch_tokens` counts: the tokens that each source keeps busy."""
        around = 2 + self.options.outputs * self.rules.max_length
        return [min(len(source), self.longest_source) + around for source in sources]

    @torch.inference_mode()
    def _searched(self, sources: list[Ints], tasks: list[Task], budget: int) -> Iterator[Batch]:
        places = {task.key: place for place, task in enumerate(tasks)}
        assert len(places) == len(tasks), "every source has a key of its own"
        most = max(1, LOGITS // (self.options.outputs * self.frame.vocabulary))
        intake = Intake(self.costs(sources), budget, most)

        def arriving(start: Callable[[list[Ints]], tuple[Tensor, S]]) -> Arrivals[S]:
            def arrivals(live: int) -> Started[S] | None:
                starting = intake.take()
                if not starting:
                    return None
                first, state = start([sources[place] for place in starting])
                return Started([tasks[place] for place in starting], first, state)

            return arrivals

        if self.drafting is None:
            wanted = any(task.phrases for task in tasks)
            strategy = strategy_of(
                self.options,
                self.rules,
                self.scoring,
                width=self.width,
                phrases=wanted,
                attention=self._attention,
            )
            found = run(strategy, self.decoder.step, arriving(self.decoder.start))
        else:
            found = run(Follow(self.rules, self.scoring), self.drafting.step, arriving(self.drafting.start))
        for key, hypotheses in found:
            intake.end(places[key])
            yield [(places[key], hypotheses)]

    @torch.inference_mode()
    def _s2s_ft(self, sources: list[Ints], budget: int) -> Iterator[Batch]:
        """The search of s2s-ft, whose sentences start and end together."""
        options = self.options
        for places in budgeted(self.costs(sources), budget):
            first, state = self.decoder.start([sources[place] for place in places])
            found = s2s_ft(
                first,
                state,
                self.decoder.step,
                self.rules,
                beam=options.beam,
                nbest=options.nbest,
                scoring=self.scoring,
                pad=self.frame.pad,
            )
            yield list(zip(places, found, strict=True))

    def _aligned(self, found: Iterator[Batch], sources: list[Ints]) -> Iterator[Batch]:
        """The same with alignments, several sources at a time."""
        assert self.attending is not None, "attention was asked for"
        waiting: Batch = []
        for batch in chain(found, [None]):
            waiting += batch or []
            if waiting and (batch is None or len(waiting) >= ALIGNED):
                outputs = [[hypothesis.ids for hypothesis in hypotheses] for _, hypotheses in waiting]
                places = self.attending.align([sources[place] for place, _ in waiting], outputs)
                yield [
                    (place, [one._replace(alignment=places) for one, places in zip(hypotheses, some, strict=True)])
                    for (place, hypotheses), some in zip(waiting, places, strict=True)
                ]
                waiting = []

    def _attention(self, state: Written | Together) -> Tensor:
        assert self.attending is not None, "attention was asked for"
        return self.attending.shares(state.states[0] if isinstance(state, Together) else state)


def reading_of(card: ModelCard) -> Reading:
    """How a model of this objective reads a step; ModelError for an objective that does not write."""
    found = DECODING.get(card.objective)
    if found is None:
        raise ModelError(
            f"a model trained with '{card.objective}' is not known to write",
            f"--objective takes {', '.join(DECODING)}; --fill fills gaps; or fine-tune it",
        )
    return cast(Reading, found)


def continues(card: ModelCard) -> bool:
    """Whether the model goes on with its source, as it was trained to with every text."""
    return card.objective == "next-token"


def longest_source(decoder: Decoder) -> int:
    """Most source tokens, special ones not counted, that a decoder reads; longer sources are cut."""
    lone = decoder.reading == "next" and decoder.frame.separator_in == "target"
    return decoder.frame.max_source - (1 if lone else 2)


def frame_of(encoder: Encoder, card: ModelCard, roles: Roles, max_length: int | None) -> Frame:
    """Special tokens and limits: targets up to `max_length` (or the card's), sources up to the positions that are left.

    UsageError when they leave no room for a source.
    """
    positions = encoder.config.positions
    target = max_length or min(card.max_target or MAX_LENGTH, positions // 2)
    source = min(card.max_source or positions, positions - target)
    if source < 3:
        raise UsageError(
            f"max_length {target} leaves no room for a source: the model has {positions} positions",
            "lower --max-length, or convert the model with --positions",
        )
    return replace(
        Frame(roles.pad, roles.start, roles.separator, roles.mask, encoder.config.vocabulary),
        source_segment=card.source_segment,
        target_segment=card.target_segment,
        max_source=source,
        max_target=target,
        separator_in="source" if continues(card) else card.separator_in,
        truncate="head" if continues(card) else card.truncate,
    )


def _frame(model: Opened, max_length: int | None) -> Frame:
    return frame_of(model.encoder, model.card, model.tokenizer.roles, max_length)


def _decoder(model: Opened, longest: int, dtype: str) -> Decoder:
    memory = cache_format(settle(dtype, model.encoder.config.hidden, model.encoder.head.bias.device.type))
    frame, reading = _frame(model, longest), reading_of(model.card)
    return Decoder(model.encoder.eval(), frame, reading, memory, continues=continues(model.card))
