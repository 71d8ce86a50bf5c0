"""Accuracy, F1, correlations, entities and SQuAD's answers, by hand and by their definitions written out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unilmctl import metrics
from unilmctl.errors import DataError
from unilmctl.metrics import Options
from unilmctl.metrics.labels import entities


def value(name, hypotheses, truths, **options):
    return metrics.score(name, hypotheses, [[truth] for truth in truths], Options(**options)).value


def test_accuracy_takes_any_reference_and_ignores_blanks_around():
    assert metrics.score("accuracy", [" 1", "0", "2"], [["1"], ["1", "0"], ["1"]]).value == pytest.approx(200 / 3)


def test_f1_is_that_of_label_1_where_there_is_one():
    given_, true = ["1", "1", "0", "0", "1"], ["1", "0", "0", "1", "1"]
    assert value("f1", given_, true) == pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 1))
    assert metrics.score("f1", given_, [[one] for one in true]).signature == "nrefs:1|labels:2|positive:1"
    assert value("f1", ["yes", "no"], ["yes", "yes"]) == pytest.approx(100 * 2 / 3)


def test_macro_f1_is_the_mean_over_all_labels():
    # a: 1 right, 2 given, 1 true: 2/3; b: 0; c: 1
    assert value("macro_f1", ["a", "a", "c"], ["a", "b", "c"]) == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_matthews_of_two_labels_is_the_formula_of_1975(pairs):
    both = sum(g and t for g, t in pairs)
    neither = sum(not g and not t for g, t in pairs)
    wrong, missed = sum(g and not t for g, t in pairs), sum(t and not g for g, t in pairs)
    spread = (both + wrong) * (both + missed) * (neither + wrong) * (neither + missed)
    wanted = (both * neither - wrong * missed) / math.sqrt(spread) if spread else 0.0
    found = value("matthews", [str(int(g)) for g, _ in pairs], [str(int(t)) for _, t in pairs])
    assert found == pytest.approx(100 * wanted, abs=1e-9)


def test_correlations():
    given_, true = ["1", "2", "3", "10"], ["2", "4", "6", "7"]
    assert value("spearman", given_, true) == pytest.approx(100)
    assert value("pearson", ["1", "2", "3"], ["3", "2", "1"]) == pytest.approx(-100)
    assert value("pearson", given_, true) == pytest.approx(100 * 22 / math.sqrt(50 * 14.75))
    assert value("spearman", ["1", "1", "2"], ["5", "6", "7"]) == pytest.approx(100 * math.sqrt(3) / 2)
    assert value("pearson", ["1", "1"], ["1", "2"]) == 0


@pytest.mark.parametrize("text", ["nan", "inf", "good"])
def test_what_is_no_number_is_named(text):
    with pytest.raises(DataError, match=f"line 2: '{text}' is not a number"):
        value("pearson", ["1", text], ["1", "2"])


def test_entities_begin_and_end_as_conll_says():
    assert entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-PER"]) == {
        ("PER", 0, 2),
        ("LOC", 3, 4),
        ("LOC", 4, 5),
        ("PER", 5, 6),
    }
    assert entities(["I-PER", "I-PER"]) == {("PER", 0, 2)}
    assert entities([]) == set()


def test_tag_metrics():
    given_, true = ["B-PER O", "O O B-LOC"], ["B-PER I-PER", "O O B-LOC"]
    assert value("tag_accuracy", given_, true) == pytest.approx(80)
    assert value("tag_f1", given_, true) == pytest.approx(50)
    assert value("tag_precision", ["O", "O O B-LOC"], true) == 100
    assert value("tag_recall", ["O", "O O B-LOC"], true) == 50
    with pytest.raises(DataError, match="line 1: 3 tags for 2"):
        value("tag_f1", ["O O O"], ["O O"])


def test_squad_takes_the_best_reference():
    references = [["the Cat", "a dog"], ["Paris"]]
    assert metrics.score("squad_em", ["cat.", "in Paris"], references).value == 50
    assert metrics.score("squad_f1", ["cat.", "in Paris"], references).value == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert value("squad_f1", ["北京"], ["北京市"], language="zh") == pytest.approx(80)
    assert value("squad_em", ["北京,"], ["北京"], language="zh") == 100
