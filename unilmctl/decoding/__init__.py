"""The model as a step function: what a search needs, computed from cached keys and values.

`stepping` reads the model one step at a time, `drafting` (with `followers`) several tokens at a time where they can be
guessed; `ensemble` makes one of several models, `attending` tells which words of the source a step looks at; `moments`
writes the answers of any row, `spans` gaps of unknown length; `packing` lays the weights out for decoding, `precision`
chooses their format.
"""

from unilmctl.decoding.attending import Attending
from unilmctl.decoding.drafting import Drafting
from unilmctl.decoding.ensemble import Ensemble, Reader, Together
from unilmctl.decoding.moments import Moments, Plan, Planned
from unilmctl.decoding.packing import pack
from unilmctl.decoding.precision import FORMATS, cache_format, settle
from unilmctl.decoding.spans import Spanned, Spans
from unilmctl.decoding.stepping import Decoder, Reading, Written

__all__ = [
    "FORMATS",
    "Attending",
    "Decoder",
    "Drafting",
    "Ensemble",
    "Moments",
    "Plan",
    "Planned",
    "Reader",
    "Reading",
    "Spanned",
    "Spans",
    "Together",
    "Written",
    "cache_format",
    "pack",
    "settle",
]
