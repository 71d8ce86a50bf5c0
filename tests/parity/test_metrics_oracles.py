"""Our figures beside those of the libraries themselves, on one corpus with one to three references a line."""

from collections.abc import Iterator

import numpy as np
import pytest

from unilmctl import metrics
from unilmctl.metrics import Options

TEXT = "The the a cats running said, don't U.S. 3,000 well-known (new) cat runs news dying flying proceeds! It's £20"
WORDS = TEXT.split()
CHINESE = list("我喜欢猫和狗，你呢？A1")


def corpus(alphabet: list[str], joint: str) -> tuple[list[str], list[list[str | None]]]:
    random = np.random.default_rng(11)

    def text() -> str:
        return joint.join(random.choice(alphabet, random.integers(3, 14)))

    references: list[list[str | None]] = []
    for line in range(30):
        references.append([text() if k <= line % 3 else None for k in range(3)])
    hypotheses = [str(texts[0]) if line % 5 == 0 else text() for line, texts in enumerate(references)]
    return hypotheses, references


ENGLISH_CORPUS = corpus(WORDS, " ")
CHINESE_CORPUS = corpus(CHINESE, "")


def streams(references: list[list[str | None]]) -> list[list[str | None]]:
    return [list(stream) for stream in zip(*references, strict=True)]


def sacrebleu_cases() -> Iterator[tuple[str, Options, object]]:
    from sacrebleu.metrics import BLEU, CHRF, TER

    yield "bleu", Options(), BLEU()
    yield "bleu", Options(lowercase=True), BLEU(lowercase=True)
    yield "bleu", Options(tokenize="intl", smooth="none"), BLEU(tokenize="intl", smooth_method="none")
    yield "bleu", Options(tokenize="none"), BLEU(tokenize="none", force=True)
    yield "bleu", Options("zh"), BLEU(tokenize="zh")
    yield "bleu", Options("ja"), BLEU(tokenize="char")
    yield "bleu2", Options(), BLEU(max_ngram_order=2)
    yield "chrf", Options(), CHRF()
    yield "chrf", Options(lowercase=True), CHRF(lowercase=True)
    yield "chrf++", Options(), CHRF(word_order=2)
    yield "ter", Options(), TER()
    yield "ter", Options("zh"), TER(normalized=True, asian_support=True)


@pytest.mark.parametrize(("name", "options", "oracle"), sacrebleu_cases())
def test_sacrebleu(name, options, oracle):
    hypotheses, references = CHINESE_CORPUS if options.language != "en" else ENGLISH_CORPUS
    ours = metrics.score(name, hypotheses, references, options)
    assert ours.value == pytest.approx(oracle.corpus_score(hypotheses, streams(references)).score, abs=1e-9)
    assert ours.signature == str(oracle.get_signature())


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_score(stem):
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    hypotheses, references = ENGLISH_CORPUS
    oracle = RougeScorer(kinds, use_stemmer=stem)
    theirs = [
        oracle.score_multi([text for text in texts if text is not None], hypothesis)
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    ours = metrics.evaluate(hypotheses, references, names=kinds, options=Options(stem=stem))
    assert ours == pytest.approx({kind: 100 * np.mean([row[kind].fmeasure for row in theirs]) for kind in kinds})


def test_rouge_of_characters_is_rouge_of_their_numbers():
    """LCSTS maps every character to a number, so that an English ROUGE can count them."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    hypotheses, references = CHINESE_CORPUS

    def numbers(text: str) -> str:
        return " ".join(str(ord(character)) for character in text.lower())

    oracle = RougeScorer(kinds)
    theirs = [oracle.score(numbers(texts[0]), numbers(h)) for h, texts in zip(hypotheses, references, strict=True)]
    ours = metrics.evaluate(hypotheses, [texts[:1] for texts in references], names=kinds, options=Options("zh"))
    assert ours == pytest.approx({kind: 100 * np.mean([row[kind].fmeasure for row in theirs]) for kind in kinds})


@pytest.mark.parametrize(
    "corpus_and_options", [(CHINESE_CORPUS, Options("zh")), (ENGLISH_CORPUS, Options(tokenize="none"))]
)
def test_nltk_sentence_bleu(corpus_and_options):
    from nltk.translate.bleu_score import SmoothingFunction
    from nltk.translate.bleu_score import sentence_bleu as oracle

    (hypotheses, references), options = corpus_and_options
    split = (lambda text: list(text.lower())) if options.language == "zh" else str.split
    theirs = [
        oracle(
            [split(text) for text in texts if text is not None],
            split(hypothesis),
            smoothing_function=SmoothingFunction().method1,
        )
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    ours = metrics.score("sentence_bleu", hypotheses, references, options).value
    assert ours == pytest.approx(100 * np.mean(theirs))
