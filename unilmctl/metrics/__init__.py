"""How good generated text and labels are: the usual metrics with signatures, and the figures as papers compute them.

    values        Options, Score, what is counted per sentence      scoring       the table of metrics; score, evaluate
    words         text to units, by language                        translation   BLEU, chrF, TER, sentence BLEU, NIST
    rouge         ROUGE, ROUGE-1.5.5, COCO ROUGE-L                  matching      exact match, SQuAD, CoQA, distinct-n
    labels        accuracy, F1, correlations, entities of tags
    significance  bootstrap intervals, paired test                  postprocess   the papers' text preparation
    tasks         the published tables as presets

sacrebleu, rouge-score and nltk are imported by the functions that need them, so that importing this room costs nothing.
"""

from unilmctl.metrics.scoring import GROUPS, LOWER_IS_BETTER, NAMES, evaluate, expand, measure, report, score
from unilmctl.metrics.significance import RESAMPLES, SEED, TRIALS, compare
from unilmctl.metrics.tasks import TASKS, Task, task
from unilmctl.metrics.values import Comparison, Interval, Measured, Options, References, Score
from unilmctl.metrics.words import BLEU_TOKENIZERS

__all__ = [
    "BLEU_TOKENIZERS",
    "GROUPS",
    "LOWER_IS_BETTER",
    "NAMES",
    "RESAMPLES",
    "SEED",
    "TASKS",
    "TRIALS",
    "Comparison",
    "Interval",
    "Measured",
    "Options",
    "References",
    "Score",
    "Task",
    "compare",
    "evaluate",
    "expand",
    "measure",
    "report",
    "score",
    "task",
]
