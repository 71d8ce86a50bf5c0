"""Training: a loop that yields its steps, and what it is made of.

`loss` is the language-model loss in chunks, `heads` has the others, `scoring` a batch's losses head by head,
`optimizer` AdamW and its schedules, `feed` turns examples into batches whose order and corruption are functions of
(seed, epoch, example), `parts` cuts what memory does not hold, `precision` decides about bfloat16, `distributed` shares
the work among processes and `sharding` the model, `loop` puts them together. Saving, logging and printing belong to
whoever iterates.
"""

from unilmctl.training.feed import BEGINNING, Feed, Position
from unilmctl.training.loop import Skipped, Step, evaluate, evaluate_loss, train
from unilmctl.training.loss import smoothed_loss
from unilmctl.training.optimizer import SCHEDULES, TrainOptions, build_optimizer, learning_rate
from unilmctl.training.precision import prefers_bfloat16
from unilmctl.training.scoring import Key, Tally, step_loss
from unilmctl.training.state import load_optimizer, optimizer_tensors

__all__ = [
    "SCHEDULES",
    "BEGINNING",
    "Feed",
    "Key",
    "Position",
    "Skipped",
    "Step",
    "Tally",
    "TrainOptions",
    "build_optimizer",
    "evaluate",
    "evaluate_loss",
    "learning_rate",
    "load_optimizer",
    "optimizer_tensors",
    "prefers_bfloat16",
    "smoothed_loss",
    "step_loss",
    "train",
]
