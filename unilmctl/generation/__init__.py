"""Sources in, outputs out: everything between a loaded model and lines of text.

`options` says how to decode, `strategy` by which search, `wishes` what an output is to be; `model` opens model folders,
`generator` decodes batches of token ids, `scoring` gives the log-probabilities of given targets (`recurrence` in long
texts), `labelling` asks heads what they say of a text, `filling` fills the gaps of lines (`gapped` knows them). `lines`
reads records as they arrive, `stream` answers them in order. `work` is what waits to be decoded, `workers` the
processes that do it, `sharding` divides one input among several commands.
"""

from unilmctl.generation.filling import Filler, Filling
from unilmctl.generation.gapped import Gapped, gapped
from unilmctl.generation.generator import Generator
from unilmctl.generation.labelling import Labeller, Said, task_of
from unilmctl.generation.lines import Item, open_lines, read_records
from unilmctl.generation.model import Opened, open_model, open_models
from unilmctl.generation.options import GenerateOptions
from unilmctl.generation.scoring import Scored, Scorer
from unilmctl.generation.sharding import Digest, Shard, merged, open_part, shard_of
from unilmctl.generation.stream import Answer, Tally, generate_stream, text_ids, usable, windows
from unilmctl.generation.work import Decode, Work, decoder_of
from unilmctl.generation.workers import CAN_FORK, Staff
from unilmctl.search import Hypothesis

__all__ = [
    "shard_of",
    "open_part",
    "merged",
    "decoder_of",
    "Work",
    "Staff",
    "Shard",
    "Digest",
    "Decode",
    "CAN_FORK",
    "Answer",
    "Filler",
    "Filling",
    "Gapped",
    "GenerateOptions",
    "Generator",
    "Hypothesis",
    "Item",
    "Labeller",
    "Opened",
    "Said",
    "Scored",
    "Scorer",
    "Tally",
    "gapped",
    "generate_stream",
    "open_lines",
    "open_model",
    "open_models",
    "read_records",
    "task_of",
    "text_ids",
    "usable",
    "windows",
]
