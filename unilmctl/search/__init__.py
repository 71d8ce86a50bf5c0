"""Search over a step function: greedy, beam, sampling, and the rules of s2s-ft.

This room knows neither model nor tokenizer. A search is given the scores of the first token, a state, and a step
function that takes the tokens just chosen and the state and returns the scores of the next ones. `run` is the loop, in
which sentences come and go; `rules` says what may be written, `scoring` what a finished hypothesis is worth, and each
of `beam`, `phrases`, `contrastive` and `single` holds one strategy, a way of choosing; `coverage` adds a penalty to
the first two. `reference` has a loop of its own.

Scores are sums of the model's own log-probabilities, unless penalties were asked for: a banned token is not available,
but its probability is not given to the others, so that a hypothesis scores the same whatever was banned.
"""

from unilmctl.search.beam import Beam, beam_search
from unilmctl.search.contrastive import Contrastive
from unilmctl.search.coverage import Covering
from unilmctl.search.phrases import Constrained, distinct, holds
from unilmctl.search.reference import Trace, s2s_ft, s2s_ft_trace
from unilmctl.search.rules import Prefix, Rules, repeated
from unilmctl.search.run import Arrivals, Choice, Phrase, Started, Strategy, Task, in_order, run
from unilmctl.search.sampling import Sampling
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.single import Follow, greedy, sample
from unilmctl.search.step import State, Step
from unilmctl.search.table import Table

__all__ = [
    "SUM",
    "Arrivals",
    "Beam",
    "Choice",
    "Constrained",
    "Contrastive",
    "Covering",
    "Follow",
    "Hypothesis",
    "Phrase",
    "Prefix",
    "Rules",
    "Sampling",
    "Scoring",
    "Started",
    "State",
    "Step",
    "Strategy",
    "Table",
    "Task",
    "Trace",
    "beam_search",
    "distinct",
    "greedy",
    "holds",
    "in_order",
    "repeated",
    "run",
    "s2s_ft",
    "s2s_ft_trace",
    "sample",
]
