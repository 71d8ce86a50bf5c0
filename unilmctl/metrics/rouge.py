"""ROUGE in three readings: rouge-score's, the papers' ROUGE-1.5.5, and the COCO scorer's ROUGE-L.

The first two take, of several references, the one with the best F; COCO takes the best precision and the best recall
each on its own, and weighs recall by beta = 1.2.
"""

from importlib.metadata import version
from typing import Any

import numpy as np

from unilmctl.metrics import words
from unilmctl.metrics.values import Measured, Options, References, Table, averaged, present, sign

BETA = 1.2


def rouge(names: list[str], hypotheses: list[str], references: References, options: Options) -> dict[str, Measured]:
    """`rouge1`-`rouge4`, `rougeL`, `rougeLsum` (sentences parted by newlines): rouge-score's F, averaged.

    English is stemmed unless the options say not to; other scripts are cut by `words.unit`, so Chinese is not empty.
    """
    kind = words.unit(options)
    stemmed = "yes" if kind == "ascii" and options.stem else "no"
    signature = sign(references, "case:lc", f"tok:{kind}", f"stem:{stemmed}", f"rouge-score:{version('rouge-score')}")
    tables = _tables(names, hypotheses, references, words.rouge_tokenizer(options))
    return {name: _measured(table, signature) for name, table in tables.items()}


def rouge155(names: list[str], hypotheses: list[str], references: References, options: Options) -> dict[str, Measured]:
    """`rouge155_1`, `rouge155_2`, `rouge155_L`: the F of `ROUGE-1.5.5.pl -c 95 -m -n 2 -a` for every text, averaged.

    The original prints the mean of bootstrap samples instead, which wavers by 0.02. ROUGE-L is of the whole summary
    there: its sentences are parted by newlines.
    """
    kinds = {"rouge155_1": "rouge1", "rouge155_2": "rouge2", "rouge155_L": "rougeLsum"}
    listed = "yes" if options.exceptions else "no"
    signature = sign(references, "case:lc", "tok:rouge155", "stem:porter", f"exceptions:{listed}")
    tokenizer = words.rouge155_tokenizer(options)
    tables = _tables([kinds[name] for name in names], hypotheses, references, tokenizer)
    return {name: _measured(tables[kinds[name]], signature) for name in names}


def _tables(kinds: list[str], hypotheses: list[str], references: References, tokenizer: Any) -> dict[str, Table]:
    """Precision, recall, F (in per cent) and 1 of every sentence, [N, 4] for each kind."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    scorer = RougeScorer(kinds, tokenizer=tokenizer)
    scored = [scorer.score_multi(present(texts), h) for h, texts in zip(hypotheses, references, strict=True)]
    percent = np.array([[scores[kind] for kind in kinds] for scores in scored], dtype=np.float64) * 100
    ones = np.ones((len(scored), 1))
    return {kind: np.hstack([percent[:, k], ones]) for k, kind in enumerate(kinds)}


def _measured(table: Table, signature: str) -> Measured:
    return Measured(table, _mean_f, signature, _precision_and_recall)


def _mean_f(total: Table) -> float:
    return float(total[2] / total[3])


def _precision_and_recall(total: Table) -> dict[str, float]:
    return {"precision": float(total[0] / total[3]), "recall": float(total[1] / total[3])}


def coco_rouge_l(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """ROUGE-L as the COCO caption scorer (and with it the E2E and question generation tables) computes it."""
    split = words.coco_splitter(options)
    figures = [
        100 * _coco_f(split(hypothesis), [split(text) for text in present(texts)])
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    kind = words.unit(options)
    token = kind if kind in ("blanks", "characters") else "penn"
    return averaged(figures, sign(references, "case:lc", f"tok:{token}", f"beta:{BETA}", "best:separate"))


def _coco_f(hypothesis: list[str], references: list[list[str]]) -> float:
    common = [longest_common(hypothesis, reference) for reference in references]
    precision = max(common) / max(len(hypothesis), 1)
    recall = max(c / max(len(r), 1) for c, r in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common(left: list[str], right: list[str]) -> int:
    """The length of the longest common subsequence.

    One integer holds a bit per word of `left` (Hyyrö 2004): a cleared bit is a step of the subsequence, and a word of
    `right` updates the whole row with one addition, so that a line costs len(right) operations.
    """
    where: dict[str, int] = {}
    for place, word in enumerate(left):
        where[word] = where.get(word, 0) | 1 << place
    row = everything = (1 << len(left)) - 1
    for word in right:
        matched = row & where.get(word, 0)
        row = (row + matched | row - matched) & everything
    return len(left) - row.bit_count()
