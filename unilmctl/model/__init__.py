"""The encoder and its heads: one model for training, scoring and decoding.

`config` says what a model is made of, `layers` holds its parts, `cache` the keys and values of tokens already read,
`encoder` puts them together.
"""

from unilmctl.model.cache import Cache, KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.encoder import Encoder

__all__ = ["Cache", "Encoder", "KeysValues", "ModelConfig"]
