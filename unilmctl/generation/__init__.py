"""Sources in, outputs out: everything between a loaded model and lines of text.

`options` says how to decode, `generator` decodes batches of token ids, `scoring` gives the log-probabilities of given
targets, `lines` reads records as they arrive, `stream` answers them in order.
"""

from unilmctl.generation.generator import Generator
from unilmctl.generation.lines import live_records
from unilmctl.generation.options import DTYPES, GenerateOptions
from unilmctl.generation.scoring import Scored, Scorer
from unilmctl.generation.stream import Answer, Tally, generate_stream
from unilmctl.search import Hypothesis

__all__ = [
    "DTYPES",
    "Answer",
    "GenerateOptions",
    "Generator",
    "Hypothesis",
    "Scored",
    "Scorer",
    "Tally",
    "generate_stream",
    "live_records",
]
