"""BLEU, chrF, TER, sentence BLEU and NIST on cases small enough to count by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl import metrics
from unilmctl.metrics import Options

TOKENS = Options(tokenize="none")


def value(name, hypotheses, references, options=TOKENS):
    return metrics.score(name, hypotheses, references, options).value


def test_bleu_by_hand():
    # 4/5, 3/4, 2/3, 1/2: their product is 1/5, and the lengths are equal
    assert value("bleu", ["a b c d e"], [["a b c d f"]]) == pytest.approx(100 * 0.2**0.25)


def test_shorter_bleu_by_hand():
    assert value("bleu1", ["a b c d e"], [["a b c d f"]]) == pytest.approx(80)
    assert value("bleu2", ["a b c d e"], [["a b c d f"]]) == pytest.approx(100 * math.sqrt(0.8 * 0.75))
    assert value("bleu3", ["a b c d e"], [["a b c d f"]]) == pytest.approx(100 * (0.8 * 0.75 * 2 / 3) ** (1 / 3))


def test_bleu_shows_its_parts():
    details = metrics.score("bleu", ["a b c d"], [["a b c d e"]], TOKENS).details
    assert details["brevity_penalty"] == pytest.approx(math.exp(1 - 5 / 4))
    assert (details["hypothesis_length"], details["reference_length"]) == (4, 5)
    assert details["precision4"] == pytest.approx(100)


def test_lowercase_is_an_option_and_in_the_signature():
    pair = (["The Cat Sat Here"], [["the cat sat here"]])
    cased, lowered = (metrics.score("bleu", *pair, Options(lowercase=on)) for on in (False, True))
    assert cased.value < lowered.value == pytest.approx(100)
    assert "case:mixed" in cased.signature
    assert "case:lc" in lowered.signature


def test_a_missing_reference_is_none_and_not_an_empty_text():
    score = metrics.score("bleu", ["a b c d", "e f g h"], [["a b c d", "x"], ["e f g h", None]], TOKENS)
    assert score.value == pytest.approx(100)
    assert score.signature.startswith("nrefs:var|")
    ragged = metrics.score("bleu", ["a b c d", "e f g h"], [["a b c d", "x"], ["e f g h"]], TOKENS)
    assert ragged == score


def test_every_line_may_lack_its_first_reference():
    assert value("bleu", ["a b c d"], [[None, "a b c d"]]) == pytest.approx(100)


def test_the_language_chooses_the_tokenizer():
    assert "tok:13a" in metrics.score("bleu", ["a"], [["a"]]).signature
    assert "tok:zh" in metrics.score("bleu", ["我"], [["我"]], Options("zh")).signature
    assert "tok:char" in metrics.score("bleu", ["私"], [["私"]], Options("ja")).signature
    assert "tok:intl" in metrics.score("bleu", ["我"], [["我"]], Options("zh", tokenize="intl")).signature


def test_ter_by_hand():
    assert value("ter", ["a b c"], [["a b d"]]) == pytest.approx(100 / 3)
    assert value("ter", ["我喜欢狗"], [["我喜欢猫"]], Options("zh")) == pytest.approx(25)


def test_sentence_bleu_by_hand():
    # characters: 3/4, 2/3, 1/2, and 0.1 for no 4-gram of 1
    expected = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** 0.25
    assert value("sentence_bleu", ["我喜欢狗"], [["我喜欢猫"]], Options("zh")) == pytest.approx(expected)
    assert value("sentence_bleu", ["我喜欢猫"] * 2, [["我喜欢猫"], ["甲乙丙丁"]], Options("zh")) == pytest.approx(50)


def test_sentence_bleu_of_nothing_is_zero():
    assert value("sentence_bleu", [""], [["我"]], Options("zh")) == 0


def test_nist_by_hand():
    # each word is one of two (1 bit), the second word follows the first for certain (0 bits)
    assert value("nist", ["a b"], [["a b"]]) == pytest.approx(1)
    # half the length: exp(ln .5 (ln .5 / ln 1.5)^2)
    penalty = math.exp(math.log(0.5) * (math.log(0.5) / math.log(1.5)) ** 2)
    assert value("nist", ["a"], [["a b"]]) == pytest.approx(penalty)


def test_nist_without_words_is_zero():
    assert value("nist", [""], [["a b"]]) == 0
    assert value("nist", [""], [[""]]) == 0


def slow_nist(hypotheses, references):
    """The definition, word for word: lists and their counts, one n-gram after another."""

    def grams(tokens, n):
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    every = [text for texts in references for text in texts]
    pool = {n: [gram for text in every for gram in grams(text, n)] for n in range(1, 6)}
    figure = 0.0
    for n in range(1, 6):
        gained, total = 0.0, 0
        for hypothesis, texts in zip(hypotheses, references, strict=True):
            found = grams(hypothesis, n)
            total += len(found)
            for gram in set(found):
                shared = min(found.count(gram), max(grams(text, n).count(gram) for text in texts))
                before = len(pool[1]) if n == 1 else pool[n - 1].count(gram[:-1])
                if shared:
                    gained += shared * math.log2(before / pool[n].count(gram))
        figure += gained / total if total else 0.0
    words = sum(map(len, hypotheses))
    mean = sum(map(len, every)) / (len(every) / len(hypotheses))
    ratio = min(1.0, words / mean)
    return figure * math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(ratio) ** 2) if ratio else 0.0


line = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(line, st.lists(line, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_nist_equals_its_slow_twin(corpus):
    hypotheses, references = [h for h, _ in corpus], [r for _, r in corpus]
    fast = value("nist", [" ".join(h) for h in hypotheses], [[" ".join(t) for t in r] for r in references])
    assert fast == pytest.approx(slow_nist(hypotheses, references))
