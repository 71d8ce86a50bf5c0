"""The encoder and its heads: one model for training, scoring and decoding.

`config` says what a model is made of, `layers` holds its parts, `heads` what it may predict besides words, `cache` the
keys and values of tokens already read, `encoder` puts them together.
"""

from unilmctl.model.cache import Cache, KeysValues
from unilmctl.model.config import ModelConfig
from unilmctl.model.encoder import Encoder
from unilmctl.model.heads import HeadConfig

__all__ = ["Cache", "Encoder", "HeadConfig", "KeysValues", "ModelConfig"]
