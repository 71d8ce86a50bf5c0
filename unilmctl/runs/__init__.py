"""The run folder: what a training run leaves on disk, and how it goes on after a stop.

`folder` is the layout (log, checkpoints, `best`, `latest`), `lock` lets one training in, `differences` says why
a folder belongs to another recipe, `signals` turns SIGTERM and SIGINT into a question that training asks. `report` is
the run on one page, out of `curves` and `charts`. `checkpoint` is one checkpoint with its training state; it is not
brought in here, because it loads what only training needs.
"""

from unilmctl.runs.curves import Curve, curves
from unilmctl.runs.differences import check_same_run
from unilmctl.runs.folder import Best, RunFolder, latest_run, model_folder
from unilmctl.runs.lock import alone_in
from unilmctl.runs.report import Lengths, lengths_of, report_page, write_report
from unilmctl.runs.signals import StopSignals

__all__ = [
    "Best",
    "Curve",
    "Lengths",
    "RunFolder",
    "StopSignals",
    "alone_in",
    "check_same_run",
    "curves",
    "latest_run",
    "lengths_of",
    "model_folder",
    "report_page",
    "write_report",
]
