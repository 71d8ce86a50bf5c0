"""Exact match, the answers of SQuAD and CoQA, and distinct-n."""

import re
import string
from collections import Counter
from itertools import chain

import numpy as np

from unilmctl.metrics import words
from unilmctl.metrics.translation import ngrams
from unilmctl.metrics.values import Measured, Options, References, Table, averaged, present, sign

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """How many outputs equal one of their references; blanks around them do not count."""

    def plain(text: str) -> str:
        return text.strip().lower() if options.lowercase else text.strip()

    hits = [
        100.0 * any(plain(hypothesis) == plain(text) for text in present(texts))
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    return averaged(hits, sign(references, f"case:{'lc' if options.lowercase else 'mixed'}"))


def squad(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`squad_em` and `squad_f1`: the best of all references, without case, punctuation marks and articles.

    Exact match, and the F1 of words in common (Rajpurkar et al. 2016, arXiv 1606.05250); of characters where the
    language is counted by them.
    """
    by_character = words.unit(options) == "characters"

    def parts(text: str) -> list[str]:
        return words.characters(text.translate(_PUNCTUATION)) if by_character else _answer(text)

    def one(hypothesis: str, truth: str) -> float:
        given, true = parts(hypothesis), parts(truth)
        return float(given == true) if name == "squad_em" else _f1(true, given)

    figures = [
        100 * max(one(hypothesis, text) for text in present(texts))
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    unit = "characters" if by_character else "words"
    return averaged(figures, sign(references, "case:lc", "punctuation:no", "articles:no", f"tok:{unit}"))


def coqa_f1(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """The F1 of the CoQA challenge: words in common, without case, punctuation marks and articles.

    With k > 1 human answers, each is left out in turn and the best F1 against the others is taken; their mean counts.
    """
    figures = [
        100 * _leave_one_out([_f1(_answer(text), _answer(hypothesis)) for text in present(texts)])
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    return averaged(figures, sign(references, "case:lc", "punctuation:no", "articles:no", "best:leave-one-out"))


def _answer(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(reference: list[str], hypothesis: list[str]) -> float:
    if not reference or not hypothesis:
        return float(reference == hypothesis)
    common = (Counter(reference) & Counter(hypothesis)).total()
    return 2 * common / (len(reference) + len(hypothesis))


def _leave_one_out(figures: list[float]) -> float:
    if len(figures) == 1:
        return figures[0]
    others = [figures[:k] + figures[k + 1 :] for k in range(len(figures))]
    return sum(map(max, others)) / len(figures)


def distinct(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`distinct1`-`distinct4`: different n-grams as a share of all n-grams of the whole output (Li et al. 2016)."""
    n = int(name.removeprefix("distinct"))
    kind = words.unit(options)
    by_character = kind == "characters"
    lines = [words.characters(h) if by_character else _cased(h, options).split() for h in hypotheses]
    counts = Counter(chain.from_iterable(ngrams(line, n).elements() for line in lines))
    table = np.array([[len(counts), counts.total()]], dtype=np.float64)
    case = "lc" if by_character or options.lowercase else "mixed"
    token = "characters" if by_character else "blanks"
    return Measured(table, _share, f"case:{case}|tok:{token}", resampled=False)


def _cased(text: str, options: Options) -> str:
    return text.lower() if options.lowercase else text


def _share(total: Table) -> float:
    return 100 * float(total[0] / max(total[1], 1))
