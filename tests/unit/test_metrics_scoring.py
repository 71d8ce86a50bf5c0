"""The table of metrics: names, refusals, and what holds for all of them."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl import metrics
from unilmctl.errors import DataError, UsageError
from unilmctl.metrics import Options


def test_groups_are_spelt_out_and_names_come_once():
    assert metrics.expand(["rouge2", "rouge", "bleu", "bleu"]) == ["rouge2", "rouge1", "rougeL", "rougeLsum", "bleu"]
    assert metrics.expand(["distinct"]) == ["distinct1", "distinct2"]


def test_an_unknown_metric_is_guessed():
    with pytest.raises(UsageError, match="unknown metric 'rougel'; did you mean 'rougeL'\\?") as caught:
        metrics.evaluate(["a"], [["a"]], names=["rougel"])
    assert "coqa_f1" in caught.value.hint
    with pytest.raises(UsageError, match="unknown metric 'xyzzy'$"):
        metrics.expand(["xyzzy"])


def test_one_score_is_no_group():
    with pytest.raises(UsageError, match="'rouge' is several metrics") as caught:
        metrics.score("rouge", ["a"], [["a"]])
    assert caught.value.hint == "use one of rouge1, rouge2, rougeL, rougeLsum"


def test_an_unknown_tokenizer():
    with pytest.raises(UsageError, match="unknown tokenizer 'mecab'") as caught:
        metrics.score("bleu", ["a"], [["a"]], Options(tokenize="mecab"))
    assert caught.value.hint == "use one of 13a, intl, zh, char, none"


@pytest.mark.parametrize("name", ["bleu", "rouge1", "distinct1"])
def test_what_is_no_language(name):
    with pytest.raises(UsageError, match="'English' is not a language code") as caught:
        metrics.score(name, ["a"], [["a"]], Options("English"))
    assert "zh" in caught.value.hint


def test_nothing_to_score():
    with pytest.raises(DataError, match="no hypotheses"):
        metrics.evaluate([], [], names=["bleu"])


def test_lengths_must_agree():
    with pytest.raises(DataError, match="2 hypotheses but references for 1"):
        metrics.evaluate(["a", "b"], [["a"]], names=["bleu"])


@pytest.mark.parametrize("texts", [[], [None]])
def test_a_line_without_reference(texts):
    with pytest.raises(DataError, match="line 2 has no reference"):
        metrics.evaluate(["a", "b"], [["a"], texts], names=["bleu"])


def test_a_score_in_json():
    row = metrics.score("exact_match", ["a"], [["a"]]).to_json()
    signature = "nrefs:1|case:mixed"
    assert row == {"name": "exact_match", "value": 100, "signature": signature, "interval": None, "details": {}}


def test_evaluate_gives_bare_figures_in_the_order_asked():
    figures = metrics.evaluate(["a b"], [["a b"]], names=["rougeL", "exact_match", "rouge1"])
    assert list(figures.items()) == [("rougeL", 100), ("exact_match", 100), ("rouge1", 100)]


def test_importing_the_room_costs_nothing():
    code = "import sys, unilmctl.metrics; print({'torch', 'sacrebleu', 'rouge_score', 'nltk'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


BEST = {**dict.fromkeys(metrics.NAMES, 100.0), "ter": 0.0}
UNBOUNDED = {"nist", "distinct1", "distinct2", "distinct3", "distinct4"}
PICKY = {"pearson", "spearman", "tag_f1", "tag_precision", "tag_recall", "tag_accuracy"}  # not of any two texts
ANY = [name for name in metrics.NAMES if name not in PICKY]
BOUNDED = [name for name in ANY if name not in UNBOUNDED | {"matthews"}]  # where all labels are one, it is 0
word = st.text("abcdefgh", min_size=4, max_size=6)
sentence = st.lists(word, min_size=4, max_size=7).map(" ".join)


@settings(deadline=None, max_examples=20)
@given(st.lists(sentence, min_size=1, max_size=4))
def test_a_perfect_output_gets_full_marks(texts):
    figures = metrics.evaluate(texts, [[text, None] for text in texts], names=BOUNDED)
    assert figures == pytest.approx({name: BEST[name] for name in BOUNDED})


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(sentence, sentence, sentence), min_size=2, max_size=4), st.randoms())
def test_the_order_of_the_corpus_does_not_matter(corpus, random):
    mixed = random.sample(corpus, len(corpus))

    def figures(rows):
        return metrics.evaluate([h for h, _, _ in rows], [[a, b] for _, a, b in rows], names=ANY)

    assert figures(corpus) == pytest.approx(figures(mixed))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(sentence, sentence, sentence), min_size=1, max_size=3))
def test_the_order_of_the_references_does_not_matter(corpus):
    names = ["bleu", "nist", "coco_rougeL", "coqa_f1", "exact_match", "rougeL", "ter"]
    outputs = [h for h, _, _ in corpus]
    one = metrics.evaluate(outputs, [[a, b] for _, a, b in corpus], names=names)
    assert one == pytest.approx(metrics.evaluate(outputs, [[b, None, a] for _, a, b in corpus], names=names))
