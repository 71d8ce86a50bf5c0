"""The model as a step function: what a search needs, computed from cached keys and values.

`stepping` reads the model one step at a time, `packing` lays its weights out for that, `precision` chooses their format.
"""

from unilmctl.decoding.packing import pack
from unilmctl.decoding.precision import FORMATS, cache_format, settle
from unilmctl.decoding.stepping import Decoder, Reading, Written

__all__ = ["FORMATS", "Decoder", "Reading", "Written", "cache_format", "pack", "settle"]
