"""Which strategy the options ask for, and what an output is worth by them."""

from typing import Any, Literal, cast

from unilmctl.generation.options import GenerateOptions
from unilmctl.search import Beam, Constrained, Contrastive, Follow, Rules, Sampling, Scoring, Strategy


def scoring_of(options: GenerateOptions) -> Scoring:
    """What a sum of log-probabilities is divided by."""
    return Scoring(options.length_penalty, cast(Literal["penalty", "average", "none"], options.length_normalization))


def strategy_of(
    options: GenerateOptions, rules: Rules, scoring: Scoring, *, width: int, phrases: bool
) -> Strategy[Any, Any]:
    """The way of choosing, for every search but s2s-ft.

    `width` is that of the model's hidden states; `phrases`: some outputs must hold some.
    """
    if options.search == "contrastive":
        return Contrastive(rules, options.candidates, options.alpha, width, scoring)
    if options.search == "sample":
        sampling = Sampling(
            options.seed, options.temperature, options.top_k, options.top_p, options.min_p, options.typical_p
        )
        return Follow(rules, scoring, sampling, options.nbest)
    beam = Beam(rules, options.beam, options.nbest, scoring, options.beam_groups, options.diversity)
    if phrases:
        return Constrained(beam)
    if options.search == "greedy" or options.beam == 1:
        return Follow(rules, scoring)
    return beam
