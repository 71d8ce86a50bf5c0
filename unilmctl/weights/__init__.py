"""Checkpoints: model folders read and written, foreign checkpoints converted.

families       how the files of each family name weights and settings
names          tables between the encoder's names and those on disk, read in both directions
dialects       other spellings of the same names
reading        files that are not to be trusted: JSON, safetensors, pickles
tensorflow     TensorFlow's checkpoints, out of tables, messages and checksums
sources        where the files of a checkpoint lie
values         what config.json says, typed and bounded
configuration  config.json and the model it describes
heads          config.json's list of heads beside the language model's
card           unilmctl.json
assembling     an encoder of it all, every tensor accounted for
averaging      the mean of several
adapting       more or fewer positions, segments, words; heads added
cutting        a tokenizer with fewer words
folder         model folders: load_model, save_model
converting     a checkpoint in any form to a model folder, with a report
"""

from unilmctl.weights.adapting import Resized
from unilmctl.weights.assembling import HeadState, Missing
from unilmctl.weights.card import LabelTask, ModelCard, read_card
from unilmctl.weights.converting import ConvertOptions, ConvertReport, convert
from unilmctl.weights.dialects import Leftover
from unilmctl.weights.folder import Loaded, load_model, read_config, save_model
from unilmctl.weights.reading import Shape, read_shapes

__all__ = [
    "ConvertOptions",
    "ConvertReport",
    "HeadState",
    "LabelTask",
    "Leftover",
    "Loaded",
    "Missing",
    "ModelCard",
    "Resized",
    "Shape",
    "convert",
    "load_model",
    "read_card",
    "read_config",
    "read_shapes",
    "save_model",
]
