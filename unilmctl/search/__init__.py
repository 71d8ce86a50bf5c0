"""Search over a step function: greedy, beam, sampling, and the rules of s2s-ft.

This room knows neither model nor tokenizer. A search is given the scores of the first token, a state, and a step
function that takes the tokens just chosen and the state and returns the scores of the next ones. `rules` says what may
be written, `scoring` what a finished hypothesis is worth, and each of `beam`, `single` and `reference` holds one way
of choosing.

Scores are sums of the model's own log-probabilities: a banned token is not available, but its probability is not
given to the others, so that a hypothesis scores the same whatever was banned.
"""

from unilmctl.search.beam import beam_search
from unilmctl.search.reference import Trace, s2s_ft, s2s_ft_trace
from unilmctl.search.rules import Prefix, Rules, repeated
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.single import Sampling, greedy, sample
from unilmctl.search.step import State, Step

__all__ = [
    "SUM",
    "Hypothesis",
    "Prefix",
    "Rules",
    "Sampling",
    "Scoring",
    "State",
    "Step",
    "Trace",
    "beam_search",
    "greedy",
    "repeated",
    "s2s_ft",
    "s2s_ft_trace",
    "sample",
]
