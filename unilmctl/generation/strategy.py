"""Which strategy the options ask for, and what an output is worth by them."""

from collections.abc import Callable
from typing import Any, Literal, cast

from torch import Tensor

from unilmctl.generation.options import GenerateOptions
from unilmctl.search import Beam, Constrained, Contrastive, Covering, Follow, Rules, Sampling, Scoring, Strategy
from unilmctl.search.coverage import Rewarding


def scoring_of(options: GenerateOptions) -> Scoring:
    """What a sum of log-probabilities is divided by."""
    return Scoring(options.length_penalty, cast(Literal["penalty", "average", "none"], options.length_normalization))


def strategy_of(
    options: GenerateOptions,
    rules: Rules,
    scoring: Scoring,
    *,
    width: int,
    phrases: bool,
    attention: Callable[[Any], Tensor] | None,
) -> Strategy[Any, Any]:
    """The way of choosing, for every search but s2s-ft.

    `width` is that of the model's hidden states; `phrases`: some outputs must hold some; `attention` as in `Covering`.
    """
    if options.search == "contrastive":
        return Contrastive(rules, options.candidates, options.alpha, width, scoring)
    if options.search == "sample":
        sampling = Sampling(
            options.seed, options.temperature, options.top_k, options.top_p, options.min_p, options.typical_p
        )
        return Follow(rules, scoring, sampling, options.nbest)
    if options.search == "greedy" or (options.beam == 1 and not phrases and not options.coverage_penalty):
        return Follow(rules, scoring)
    beam = Beam(rules, options.beam, options.nbest, scoring, options.beam_groups, options.diversity)
    chosen = Constrained(beam) if phrases else beam
    if not options.coverage_penalty:
        return chosen
    assert attention is not None, "coverage is made of attention"
    return Covering(cast(Rewarding[Any], chosen), options.coverage_penalty, attention)
