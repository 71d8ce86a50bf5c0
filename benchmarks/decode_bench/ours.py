"""unilmctl itself, and what it says about its own time.

A single batch goes straight to the decoder and the beam, more of them through the generator and its workers.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from decode_bench import insight
from decode_bench.work import VOCABULARY, Engine, Output, Work
from unilmctl.decoding import Decoder, cache_format, pack, settle
from unilmctl.generation import GenerateOptions, Generator, Staff, decoder_of
from unilmctl.generation import Work as Waiting
from unilmctl.generation.generator import reading_of
from unilmctl.model import Encoder, ModelConfig
from unilmctl.rows import Frame
from unilmctl.search import Hypothesis, Rules, Task, beam_search
from unilmctl.tokens import Roles, Tokenizer
from unilmctl.weights import ModelCard, load_model, save_model

FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=VOCABULARY, max_source=480, max_target=32)
FOLDER = "unilmctl"

NO_TEXT = SimpleNamespace(roles=Roles(pad=0, unknown=4, start=1, separator=2, mask=3))
"""What a generator asks of a tokenizer, for a model that knows no text."""


def base_model() -> Encoder:
    """Random weights of BERT-base size."""
    encoder = Encoder(ModelConfig(vocabulary=VOCABULARY)).eval()
    encoder.initialize(torch.Generator().manual_seed(1))
    return encoder


def prepare(folder: Path) -> None:
    """Writes the model into `folder`, unless it is there: users do not begin with weights in memory either."""
    if not (folder / FOLDER).exists():
        save_model(folder / FOLDER, base_model(), ModelCard(), None)


class Ours:
    """A model read in one of two ways: `causal`, a token a step, or `pseudo`, the previous token and a [MASK]."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        torch.set_num_threads(engine.threads)
        self.engine = engine
        encoder, card = load_model(folder / FOLDER)
        self.card = replace(card, objective=engine.model)
        dtype = settle(engine.dtype, encoder.config.hidden)
        self.decoder = Decoder(pack(encoder, dtype), FRAME, reading_of(self.card), memory=cache_format(dtype))

    def decode(self, work: Work) -> list[Output]:
        """Outputs of exactly `work.tokens` tokens, the end counted."""
        if len(work.lengths) > work.batch:
            return self._scheduled(work)
        return decoded(self.decoder.start, self.decoder.step, work.sources(), work.tokens, work.beam)

    def _scheduled(self, work: Work) -> list[Output]:
        """More than one batch: as `unilmctl generate` divides it into batches and among workers."""
        sources = work.sources()
        written = work.beam * work.tokens
        options = GenerateOptions(
            beam=work.beam,
            min_length=work.tokens - 1,
            max_length=work.tokens,
            dtype=self.engine.dtype,
            batch_tokens=work.batch * (sum(work.lengths) // len(sources) + written),
            workers=self.engine.workers,
        )
        here = decoder_of(Generator(self.decoder.encoder, self.card, cast(Tokenizer, NO_TEXT), options))
        jobs = [Waiting(Task(place), source) for place, source in enumerate(sources)]
        found: dict[int, list[Hypothesis]] = {}
        with Staff(
            here,
            lambda: here,
            workers=self.engine.workers,
            cost=lambda job: len(job.source) + 2 + written,
            budget=options.batch_tokens,
        ) as staff:
            staff.submit(jobs)
            while len(found) < len(jobs):
                found.update(staff.collect())
        return [_output(found[place]) for place in range(len(jobs))]

    def products(self, work: Work) -> dict[str, float]:
        """CPU seconds of the bare matrix products of this work, see `insight.products`."""
        return insight.products(self.decoder, work)

    def profile(self, work: Work) -> dict[str, float]:
        """Where the time goes, in shares of 1, see `insight.profile`."""
        return insight.profile(
            self.decoder, lambda start, step: decoded(start, step, work.sources(), work.tokens, work.beam)
        )


def decoded(start: Callable, step: Callable, sources: list[list[int]], tokens: int, beam: int) -> list[Output]:
    """One batch through a decoder's `start` and `step`."""
    with torch.inference_mode():
        first, state = start([np.array(words) for words in sources])
        rules = Rules(end=FRAME.separator, max_length=tokens, min_length=tokens - 1)
        return [_output(found) for found in beam_search(first, state, step, rules, beam=beam)]


def _output(found: list[Hypothesis]) -> Output:
    return Output([*found[0].ids, FRAME.separator], found[0].score)
