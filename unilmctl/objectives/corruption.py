"""What happens to the tokens that a model must predict: which are chosen, and what is put in their place.

Tokens are chosen in spans. A span is some units long; a unit is a token, or whatever the caller says: a word of
several pieces, an entity, a phrase. Whole-word, n-gram, geometric and knowledge masking differ in nothing else.

Shapes: T tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unilmctl.rows import Frame, Ints

Span = Literal["token", "gram", "ngram", "ngram-5", "block", "geometric", "poisson", "suffix"]


@dataclass(frozen=True)
class Corruption:
    """How tokens are corrupted. Every rate is a probability in [0, 1].

    `target` is the objective's own rate; None stands for its default, see `RATES`. A corrupted token is kept with
    probability `keep`, replaced by a random vocabulary entry with probability `random`, and else by [MASK]. `source` is
    the probability that a source token is corrupted though nothing is predicted there (word drop).

    `span` names the lengths of the spans that are chosen together; None stands for the objective's default. `together`
    masks, replaces or keeps all tokens of a span alike (SpanBERT). `units` says what a span consists of: None tokens,
    "given" the units of the example, a function the units that it numbers, [T] to [T], equal numbers side by side.
    """

    target: float | None = None
    random: float = 0.1
    keep: float = 0.1
    source: float = 0.0
    span: Span | None = None
    units: Callable[[Ints], Ints] | Literal["given"] | None = None
    together: bool = False


DEFAULT = Corruption()
"""Everything at its default."""

RATES = {
    "pseudo": 0.5,
    "masked": 0.7,
    "causal": 0.0,
    "bidirectional": 0.15,
    "left-to-right": 0.15,
    "right-to-left": 0.15,
    "seq2seq": 0.15,
    "partial": 0.15,
    "permuted": 1 / 6,
    "permuted-compensated": 0.15,
    "infilling": 0.15,
    "infilling-in-place": 0.5,
    "block-diffusion": 0.5,
    "span-boundary": 0.15,
    "replaced": 0.15,
    "next-token": 0.0,
    "similar": 0.0,
}
"""Default of `Corruption.target` per objective; `block-diffusion` draws a share per block, 0.5 on average."""

SPANS: dict[str, Span] = {
    "bidirectional": "gram",
    "left-to-right": "gram",
    "right-to-left": "gram",
    "seq2seq": "gram",
    "partial": "block",
    "permuted": "ngram-5",
    "permuted-compensated": "token",
    "infilling": "poisson",
    "span-boundary": "geometric",
    "replaced": "token",
}
"""Default of `Corruption.span` per objective that chooses spans."""

ROUNDS = 4
"""How often each unit is tried as the start of a span; in the last round, of a span of one."""


def corrupt(
    tokens: Ints, frame: Frame, random: np.random.Generator, corruption: Corruption, spans: Ints | None = None
) -> Ints:
    """Every token, [T], masked, replaced or kept (BERT's 80/10/10).

    `spans` [T] numbers the span of each token from 0 on; `corruption.together` needs it.
    """
    draw = random.random(len(tokens))
    if corruption.together and spans is not None:
        draw = draw[spans]
    corrupted = np.full(len(tokens), frame.mask)
    replaced = draw < corruption.keep + corruption.random
    if replaced.any():
        corrupted[replaced] = random.integers(0, frame.vocabulary, int(replaced.sum()))
        kept = draw < corruption.keep
        corrupted[kept] = tokens[kept]
    return corrupted


def drop_words(source: Ints, frame: Frame, random: np.random.Generator, corruption: Corruption) -> Ints:
    """The source [T] with a share `corruption.source` of its tokens corrupted, its special tokens never."""
    if corruption.source == 0:
        return source
    dropped = np.where(
        random.random(len(source)) < corruption.source, corrupt(source, frame, random, corruption), source
    )
    special = (source == frame.start) | (source == frame.separator)
    return np.where(special, source, dropped)


def rate(corruption: Corruption, name: str) -> float:
    """The objective's own rate: what `corruption` sets, or the default."""
    return RATES[name] if corruption.target is None else corruption.target


def _gram(random: np.random.Generator, count: int) -> Ints:
    return np.where(random.random(count) < 0.8, 1, random.integers(2, 4, count))


def _ngram(random: np.random.Generator, count: int, longest: int) -> Ints:
    weights = 1 / np.arange(1, longest + 1)
    return 1 + random.choice(longest, count, p=weights / weights.sum())


def _block(random: np.random.Generator, count: int) -> Ints:
    return np.where(random.random(count) < 0.6, 1, random.integers(2, 7, count))


def _geometric(random: np.random.Generator, count: int) -> Ints:
    weights = 0.8 ** np.arange(10)
    return 1 + random.choice(10, count, p=weights / weights.sum())


LENGTHS: dict[Span, Callable[[np.random.Generator, int], Ints]] = {
    "token": lambda random, count: np.ones(count, dtype=np.int64),
    "gram": _gram,
    "ngram": lambda random, count: _ngram(random, count, 3),
    "ngram-5": lambda random, count: _ngram(random, count, 5),
    "block": _block,
    "geometric": _geometric,
    "poisson": lambda random, count: np.maximum(random.poisson(3, count), 1),
}
"""Span lengths, in units, by name. `token`: one (BERT). `gram`: 80 % one, 20 % two or three (UniLM v1). `ngram`: up to
three, n with probability proportional to 1/n (ALBERT); `ngram-5`: up to five (XLNet). `block`: 60 % one, 40 % two to
six (UniLMv2). `geometric`: p = 0.2 among one to ten, mean 3.8 (SpanBERT). `poisson`: mean 3 (GLM)."""


class Text(NamedTuple):
    """The tokens [T] of a row's text, which of them may be chosen [T], and their given units [T], if any.

    `first` is the size of the first segment.
    """

    tokens: Ints
    free: NDArray[np.bool_]
    units: Ints | None
    first: int


def words(continues: NDArray[np.bool_], tokens: Ints) -> Ints:
    """The word of each token, [T] to [T]: `continues` [vocabulary] says which entries go on with a word.

    Whole-word masking is `Corruption(units=partial(words, continues))`. BERT-wwm, arXiv 1906.08101.
    """
    return np.cumsum(~continues[tokens])


def choose(name: str, text: Text, random: np.random.Generator, corruption: Corruption) -> list[Ints]:
    """Chooses what objective `name` predicts in a text: spans of token indices, in the order drawn."""
    span = corruption.span or SPANS[name]
    if span == "suffix":
        return suffix(text.free, random, least=0.5 if corruption.target is None else corruption.target)
    units = _units(text, corruption)
    return select(text.free, random, rate=rate(corruption, name), lengths=LENGTHS[span], units=units)


def _units(text: Text, corruption: Corruption) -> Ints:
    tokens = np.arange(len(text.tokens))
    if corruption.units == "given":
        return tokens if text.units is None else text.units
    return tokens if corruption.units is None else corruption.units(text.tokens)


def suffix(free: NDArray[np.bool_], random: np.random.Generator, *, least: float) -> list[Ints]:
    """One span: the last free tokens [T], a share of them drawn between `least` and 1 (GLM's documents)."""
    places = np.flatnonzero(free)
    size = round(random.uniform(least, 1) * len(places))
    return [places[len(places) - max(1, size) :]] if len(places) else []


def select(
    free: NDArray[np.bool_],
    random: np.random.Generator,
    *,
    rate: float,
    lengths: Callable[[np.random.Generator, int], Ints],
    units: Ints,
) -> list[Ints]:
    """Draws disjoint spans until they cover the share `rate` of the free tokens, and one token at least.

    A span is whole units, [T], and holds free tokens [T] only. The last one may exceed the share, as in UniLMv2's
    Algorithm 1; where no more spans fit, single units make up the share. Gives the token indices of each span in the
    order drawn: none where nothing is free.
    """
    edges = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(free)]
    goal = max(1, round(rate * int(free.sum())))
    taken = bytearray((~free).tobytes())
    chosen: list[Ints] = []
    starts = np.concatenate([random.permutation(len(edges) - 1) for _ in range(ROUNDS)])
    sizes = lengths(random, len(starts))
    sizes[-(len(edges) - 1) :] = 1
    for start, length in zip(starts.tolist(), sizes.tolist(), strict=True):
        if goal <= 0:
            break
        begin, end = edges[start], edges[min(start + length, len(edges) - 1)]
        if start + length < len(edges) and taken.find(1, begin, end) < 0:
            taken[begin:end] = b"\1" * (end - begin)
            chosen.append(np.arange(begin, end))
            goal -= end - begin
    return chosen
