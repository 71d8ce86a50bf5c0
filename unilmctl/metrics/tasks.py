"""The published tables as presets: which metrics, over which text, with which settings.

| task | text | figures |
|---|---|---|
| cnndm | s2s-ft post-processing, 160 tokens; sentences parted by `[X_SEP]` and, in references, ` <S_SEP> ` | rouge155 |
| cnndm_v1 | the same as unilm v1 did it, 70 tokens | rouge155 |
| gigaword | re-joined tokens, digits as # | rouge155 |
| xsum | re-joined contractions and numbers | rouge155 |
| squad_qg | re-joined, lower-cased; all questions about one source are its references | BLEU on blanks, COCO ROUGE-L |
| e2e | as it is, lower-cased | BLEU, NIST-5, COCO ROUGE-L |
| multi30k | tokenised, lower-cased | BLEU on blanks |
| coqa | as it is | CoQA F1 |
| csl, lcsts | characters | ROUGE on characters; csl also mean sentence BLEU |

METEOR and CIDEr, which the E2E and question generation tables print too, are not here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from unilmctl.errors import DataError, UsageError
from unilmctl.metrics import postprocess
from unilmctl.metrics.values import Options, References


def unchanged(text: str) -> str:
    """The text as it is."""
    return text


@dataclass(frozen=True)
class Task:
    """One preset. What it sets (`tokenize`, `smooth`, `lowercase`, `language`) the user's own options override."""

    metrics: tuple[str, ...]
    hypothesis: Callable[[str], str] = unchanged
    reference: Callable[[str], str] = unchanged
    grouped: bool = False  # references are those of every line with the same source
    language: str | None = None
    lowercase: bool = False
    tokenize: str | None = None
    smooth: str = "exp"

    def options(self, asked: Options) -> Options:
        """The options asked for, completed by those of the task."""
        return replace(
            asked,
            language=self.language if self.language and asked.language == "en" else asked.language,
            lowercase=asked.lowercase or self.lowercase,
            tokenize=asked.tokenize or self.tokenize,
            smooth=self.smooth,
        )

    def prepare(
        self, hypotheses: list[str], references: References, sources: list[str] | None = None
    ) -> tuple[list[str], References]:
        """Post-process both sides; a grouped task also merges the lines of one source where `sources` are known.

        Of several outputs for one source the last counts, and all references of its lines are its references. Raises
        DataError when the numbers of lines differ.
        """
        outputs = [self.hypothesis(text) for text in hypotheses]
        truths = [[None if text is None else self.reference(text) for text in texts] for texts in references]
        if self.grouped and sources is not None:
            return _merge(outputs, truths, sources)
        return outputs, truths


def _merge(hypotheses: list[str], references: References, sources: list[str]) -> tuple[list[str], References]:
    if not len(hypotheses) == len(references) == len(sources):
        raise DataError(
            f"{len(hypotheses)} hypotheses, references for {len(references)} and {len(sources)} sources",
            "give one of each per line",
        )
    output: dict[str, str] = {}
    truths: dict[str, list[str | None]] = {}
    for hypothesis, texts, source in zip(hypotheses, references, sources, strict=True):
        key = source.strip().lower()
        output[key] = hypothesis
        truths.setdefault(key, []).extend(texts)
    return list(output.values()), list(truths.values())


_ROUGE155 = ("rouge155_1", "rouge155_2", "rouge155_L")

TASKS: dict[str, Task] = {
    "cnndm": Task(_ROUGE155, postprocess.cnndm, postprocess.cnndm_reference),
    "cnndm_v1": Task(_ROUGE155, postprocess.cnndm_v1, postprocess.cnndm_reference),
    "gigaword": Task(_ROUGE155, postprocess.gigaword, str.strip),
    "xsum": Task(_ROUGE155, postprocess.xsum, str.strip),
    "squad_qg": Task(
        ("bleu", "coco_rougeL"),
        postprocess.squad_question,
        grouped=True,
        lowercase=True,
        tokenize="none",
        smooth="none",
    ),
    "e2e": Task(("bleu", "nist", "coco_rougeL"), lowercase=True),
    "multi30k": Task(("bleu",), lowercase=True, tokenize="none", smooth="none"),
    "coqa": Task(("coqa_f1",)),
    "csl": Task(("rouge1", "rouge2", "rougeL", "sentence_bleu"), language="zh", lowercase=True),
    "lcsts": Task(("rouge1", "rouge2", "rougeL"), language="zh", lowercase=True),
}


def task(name: str | None) -> Task:
    """The preset of that name, or a plain one for None; raises UsageError for an unknown name."""
    if name is None:
        return Task(("bleu", "chrf", "rouge", "exact_match"))
    if name not in TASKS:
        raise UsageError(f"unknown task '{name}'", f"use one of {', '.join(TASKS)}")
    return TASKS[name]
