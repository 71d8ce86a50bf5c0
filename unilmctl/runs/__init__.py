"""The run folder: what a training run leaves on disk, and how it goes on after a stop.

`folder` is the layout (log, checkpoints, `best`, `latest`), `checkpoint` one checkpoint with its training state,
`differences` says why a folder belongs to another recipe, `signals` turns SIGTERM and SIGINT into a question that
training asks.
"""

from unilmctl.runs.checkpoint import State, load_checkpoint, save_checkpoint
from unilmctl.runs.differences import check_same_run
from unilmctl.runs.folder import Best, RunFolder, latest_run, model_folder
from unilmctl.runs.signals import StopSignals

__all__ = [
    "Best",
    "RunFolder",
    "State",
    "StopSignals",
    "check_same_run",
    "latest_run",
    "load_checkpoint",
    "model_folder",
    "save_checkpoint",
]
