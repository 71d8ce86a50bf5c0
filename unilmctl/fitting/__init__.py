"""One run of training, whatever it is that is learnt: what `finetune` and `pretrain` have in common.

`conducting` is a run from its recipe to its report, `starting` makes the model that training starts from, `options`
says what the keys of a recipe mean, `fitting` drives the training loop and writes the run folder, `measuring` tells
what is better, `parts` says of a log's loss what it is made of, `ending` averages the last checkpoints, `watching`
shows a run while it goes on, `replaying` meets a step that was skipped once more.
"""

from unilmctl.fitting.conducting import Job, RunReport, conduct, resume
from unilmctl.fitting.ending import finish
from unilmctl.fitting.fitting import Fitting, Stage
from unilmctl.fitting.measuring import Measures, better
from unilmctl.fitting.options import fingerprint, train_options
from unilmctl.fitting.parts import parts_of
from unilmctl.fitting.replaying import replay
from unilmctl.fitting.starting import begun, decoding_defaults, newest, place, with_dropout

__all__ = [
    "Fitting",
    "Job",
    "Measures",
    "RunReport",
    "Stage",
    "begun",
    "better",
    "conduct",
    "decoding_defaults",
    "fingerprint",
    "finish",
    "newest",
    "parts_of",
    "place",
    "replay",
    "resume",
    "train_options",
    "with_dropout",
]
