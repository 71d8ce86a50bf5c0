"""How long the row of an example will be, before it is built: what batching by token budget needs.

Exact wherever the length is not drawn; where spans of several tokens are chosen (`partial`, `permuted`, `infilling`) it
is the length at exactly the share of tokens that the objective aims at, in spans of their mean length for `infilling`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unilmctl.objectives.corruption import DEFAULT, SPANS, Corruption, rate
from unilmctl.rows import Frame, Ints


@dataclass(frozen=True)
class _Sizes:
    """Lengths [N] of the parts that rows are made of, special tokens and cuts counted."""

    source: Ints  # [CLS] source [SEP]
    target: Ints  # target [SEP]
    second: Ints  # target [SEP], or nothing without a target
    text: Ints  # [CLS] source target [SEP]
    chosen: Ints  # tokens of the text that are predicted
    spans: Ints  # spans that they form


def row_length(
    name: str, source_lengths: Ints, target_lengths: Ints, frame: Frame, corruption: Corruption = DEFAULT
) -> Ints:
    """Tokens in the row of each example: from [N] and [N], both without special tokens, [N]."""
    if name == "similar":
        there = row_length("causal", source_lengths, target_lengths, frame)
        return there + row_length("causal", target_lengths, source_lengths, frame)
    if name == "causal" and frame.separator_in == "target":
        return np.minimum(source_lengths + 1, frame.max_source) + np.minimum(target_lengths + 1, frame.max_target)
    target: Ints = np.minimum(target_lengths + 1, frame.max_target)
    text: Ints = np.minimum(source_lengths + target_lengths + 2, frame.max_source)
    chosen = np.maximum(1, np.round(_share(name, corruption) * (text - 2))).astype(np.int64)
    sizes = _Sizes(
        source=np.minimum(source_lengths + 2, frame.max_source),
        target=target,
        second=np.where(target_lengths > 0, target, 0),
        text=text,
        chosen=chosen,
        spans=np.ceil(chosen / _mean_span(name, corruption, chosen)).astype(np.int64),
    )
    return _LENGTHS[name](sizes)


MEANS = {"token": 1.0, "gram": 1.3, "ngram": 1.64, "ngram-5": 2.19, "block": 2.2, "geometric": 3.8, "poisson": 3.05}
"""Mean length of a span in units."""


def _share(name: str, corruption: Corruption) -> float:
    """The share of the text that is predicted, on average."""
    least = 0.5 if corruption.target is None else corruption.target
    return (1 + least) / 2 if corruption.span == "suffix" else rate(corruption, name)


def _mean_span(name: str, corruption: Corruption, chosen: Ints) -> Ints | float:
    span = corruption.span or SPANS.get(name, "token")
    return chosen if span == "suffix" else MEANS[span]


_LENGTHS: dict[str, Callable[[_Sizes], Ints]] = {
    "pseudo": lambda size: size.source + 2 * size.target,
    "masked": lambda size: size.source + size.target,
    "causal": lambda size: size.source + size.target - 1,
    "bidirectional": lambda size: size.source + size.second,
    "left-to-right": lambda size: size.text,
    "right-to-left": lambda size: size.text,
    "seq2seq": lambda size: size.source + size.second,
    "partial": lambda size: size.text + 2 * size.chosen,
    "permuted": lambda size: size.text + size.chosen,
    "permuted-compensated": lambda size: size.text + 2 * size.chosen,
    "infilling": lambda size: size.text + 2 * size.spans,
    "infilling-in-place": lambda size: size.text + size.chosen,
    "span-boundary": lambda size: size.text,
    "replaced": lambda size: size.source + size.second,
    "next-token": lambda size: size.text,
    "block-diffusion": lambda size: np.where(size.second > 0, size.source + 2 * size.second, 2 * size.text - 1),
}
