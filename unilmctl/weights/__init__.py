"""Checkpoints: model folders read and written, foreign checkpoints converted.

`names` holds the tables between the encoder's names and those on disk, `dialects` other spellings of them, `reading`
opens files that are not to be trusted, `configuration` is config.json, `card` unilmctl.json, `assembling` makes an
encoder of it all and accounts for every tensor, `folder` is the model folder.
"""

from unilmctl.weights.assembling import Assembly, Missing
from unilmctl.weights.card import ModelCard
from unilmctl.weights.dialects import Leftover
from unilmctl.weights.folder import Loaded, load_model, save_model

__all__ = ["Assembly", "Leftover", "Loaded", "Missing", "ModelCard", "load_model", "save_model"]
