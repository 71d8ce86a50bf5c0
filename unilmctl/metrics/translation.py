"""BLEU, chrF and TER through sacrebleu, the mean sentence BLEU of Chinese titles, and NIST-5 as in mteval-v13a."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from unilmctl.metrics import words
from unilmctl.metrics.values import Measured, Options, References, Table, averaged, present, sign

ORDER = 5  # NIST's longest n-gram


def translation(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """`bleu`, `bleu1`-`bleu3`, `chrf`, `chrf++` or `ter`; the figures and the signature are sacrebleu's own."""
    metric = _METRICS[name](options)
    rows = metric._extract_corpus_statistics(hypotheses, _streams(references))
    table = np.asarray(rows, dtype=np.float64)

    def combine(total: Table) -> float:
        return float(metric._compute_score_from_stats(total.tolist()).score)

    def details(total: Table) -> dict[str, float]:
        return _bleu_details(metric._compute_score_from_stats(total.tolist())) if name.startswith("bleu") else {}

    return Measured(table, combine, str(metric.get_signature()), details)


def _streams(references: References) -> list[list[str | None]]:
    """Sentence-major references as sacrebleu's streams: the j-th reference of every sentence, None where it lacks."""
    longest = max(map(len, references))
    return [[texts[j] if j < len(texts) else None for texts in references] for j in range(longest)]


def _bleu(options: Options, order: int = 4) -> Any:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415

    return BLEU(
        lowercase=options.lowercase,
        tokenize=words.bleu_tokenizer(options),
        smooth_method=options.smooth,
        max_ngram_order=order,
        force=True,
    )


def _bleu1(options: Options) -> Any:
    return _bleu(options, 1)


def _bleu2(options: Options) -> Any:
    return _bleu(options, 2)


def _bleu3(options: Options) -> Any:
    return _bleu(options, 3)


def _chrf(options: Options, word_order: int = 0) -> Any:
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415

    return CHRF(lowercase=options.lowercase, word_order=word_order)


def _chrf_words(options: Options) -> Any:
    return _chrf(options, 2)


def _ter(options: Options) -> Any:
    """TER is lower-cased by tradition; scripts without blanks are cut into characters."""
    from sacrebleu.metrics.ter import TER  # noqa: PLC0415

    unspaced = words.unit(options) == "characters"
    return TER(normalized=unspaced, asian_support=unspaced)


_METRICS: dict[str, Callable[[Options], Any]] = {
    "bleu": _bleu,
    "bleu1": _bleu1,
    "bleu2": _bleu2,
    "bleu3": _bleu3,
    "chrf": _chrf,
    "chrf++": _chrf_words,
    "ter": _ter,
}


def _bleu_details(score: Any) -> dict[str, float]:
    precisions = {f"precision{n}": float(p) for n, p in enumerate(score.precisions, start=1)}
    lengths = {"hypothesis_length": float(score.sys_len), "reference_length": float(score.ref_len)}
    return {"brevity_penalty": float(score.bp), **lengths, **precisions}


# --- n-grams --------------------------------------------------------------------------------------------------------


def ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    """Every n-gram with its count."""
    return Counter(zip(*(tokens[k:] for k in range(n)), strict=False))


def _most(counters: Iterable[Counter[tuple[str, ...]]]) -> Counter[tuple[str, ...]]:
    """The largest count of every n-gram in any of the references."""
    most: Counter[tuple[str, ...]] = Counter()
    for counter in counters:
        most |= counter
    return most


# --- mean sentence BLEU ---------------------------------------------------------------------------------------------


def sentence_bleu(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """The mean over sentences of BLEU-4 where a precision without a match counts 0.1 matches.

    That is smoothing method 1 of Chen & Cherry (2014), the figure of the Chinese title tables (CLGE, bert4keras): over
    characters for unspaced scripts, else over BLEU's words.
    """
    characters = words.unit(options) == "characters"
    split = words.characters if characters else words.bleu_splitter(options, lowercase=options.lowercase)
    figures = [
        100 * _smoothed_bleu(split(hypothesis), [split(text) for text in present(texts)])
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    case = "lc" if characters or options.lowercase else "mixed"
    token = "characters" if characters else words.bleu_tokenizer(options)
    return averaged(figures, sign(references, f"case:{case}", f"tok:{token}", "smooth:method1", "mean:sentence"))


def _smoothed_bleu(hypothesis: list[str], references: list[list[str]]) -> float:
    logarithms = []
    for n in range(1, 5):
        counts = ngrams(hypothesis, n)
        matches = (counts & _most(ngrams(reference, n) for reference in references)).total()
        if n == 1 and not matches:
            return 0.0
        logarithms.append(math.log((matches or 0.1) / max(counts.total(), 1)))
    closest = min((abs(len(r) - len(hypothesis)), len(r)) for r in references)[1]
    brevity = min(0.0, 1 - closest / len(hypothesis))
    return math.exp(brevity + sum(logarithms) / 4)


# --- NIST -----------------------------------------------------------------------------------------------------------


def nist(name: str, hypotheses: list[str], references: References, options: Options) -> Measured:
    """NIST-5 in bits, lower-cased (Doddington 2002, as mteval-v13a computes it; sacrebleu has none).

    A matched n-gram is worth log2(count of its first n-1 words / its own count), counted over all references; the
    length penalty compares the output with the mean reference length. Resampling keeps those weights fixed.
    """
    split = words.bleu_splitter(options, lowercase=True)
    references_split = [[split(text) for text in present(texts)] for texts in references]
    information = _information(reference for group in references_split for reference in group)
    rows = [_nist_row(split(h), group, information) for h, group in zip(hypotheses, references_split, strict=True)]
    signature = sign(references, "case:lc", f"tok:{words.bleu_tokenizer(options)}", f"order:{ORDER}", "mteval:13a")
    return Measured(np.asarray(rows, dtype=np.float64), _nist, signature)


def _information(references: Iterable[list[str]]) -> dict[tuple[str, ...], float]:
    counts: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        counts[()] += len(reference)
        for n in range(1, ORDER + 1):
            counts.update(ngrams(reference, n))
    return {gram: math.log2(counts[gram[:-1]] / count) for gram, count in counts.items() if gram}


def _nist_row(
    hypothesis: list[str], references: list[list[str]], information: dict[tuple[str, ...], float]
) -> list[float]:
    """[matched bits of 1..5-grams, number of 1..5-grams, reference words, references, 1]."""
    bits, totals = [], []
    for n in range(1, ORDER + 1):
        counts = ngrams(hypothesis, n)
        matched = counts & _most(ngrams(reference, n) for reference in references)
        bits.append(sum(information[gram] * count for gram, count in matched.items()))
        totals.append(float(counts.total()))
    return [*bits, *totals, float(sum(map(len, references))), float(len(references)), 1.0]


def _nist(total: Table) -> float:
    bits, counts = total[:ORDER], total[ORDER : 2 * ORDER]
    reference_words, references, sentences = total[2 * ORDER :]
    gained = float((bits / np.maximum(counts, 1)).sum())
    mean_length = reference_words * sentences / references
    ratio = min(counts[0] / mean_length, 1.0) if mean_length else 1.0
    if ratio == 0.0:
        return 0.0
    return gained * math.exp(math.log(0.5) * (math.log(ratio) / math.log(1.5)) ** 2)
