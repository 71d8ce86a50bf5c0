"""From the data and token sections of a recipe to a tokenizer and token stores; builds what is missing or stale.

    pairs      sources and targets
    text       documents of raw text
    tasks      texts and their labels, and several tasks at once
    building   what all need: staleness, hashes, a vocabulary of one's own

Below one folder lie `tokenizer/` (only when a vocabulary is trained) and a token store per split. Each remembers the
sha256 of its inputs and every setting that changes its contents; it is built again when one of them differs, and the
reason is reported.
"""

from unilmctl.preparation.building import Progress
from unilmctl.preparation.pairs import Pair, Prepared, SplitReport, evaluation_pairs, prepare
from unilmctl.preparation.tasks import PreparedTask, PreparedTasks, TaskData, labelled_texts, prepare_tasks
from unilmctl.preparation.text import PreparedText, TextReport, prepare_text

__all__ = [
    "Pair",
    "Prepared",
    "PreparedTask",
    "PreparedTasks",
    "PreparedText",
    "Progress",
    "SplitReport",
    "TaskData",
    "TextReport",
    "evaluation_pairs",
    "labelled_texts",
    "prepare",
    "prepare_tasks",
    "prepare_text",
]
