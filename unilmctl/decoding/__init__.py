"""The model as a step function: what a search needs, computed from cached keys and values.

`stepping` reads the model one step at a time, `drafting` (with `followers`) several tokens at a time where they can be
guessed; `ensemble` makes one of several; `packing` lays the weights out for that, `precision` chooses their format.
"""

from unilmctl.decoding.drafting import Drafting
from unilmctl.decoding.ensemble import Ensemble, Reader, Together
from unilmctl.decoding.packing import pack
from unilmctl.decoding.precision import FORMATS, cache_format, settle
from unilmctl.decoding.stepping import Decoder, Reading, Written

__all__ = [
    "FORMATS",
    "Decoder",
    "Drafting",
    "Ensemble",
    "Reader",
    "Reading",
    "Together",
    "Written",
    "cache_format",
    "pack",
    "settle",
]
