"""Exact match, CoQA F1 and distinct-n by hand."""

import pytest

from unilmctl import metrics
from unilmctl.metrics import Options


def value(name, hypotheses, references, **options):
    return metrics.score(name, hypotheses, references, Options(**options)).value


def test_exact_match_ignores_blanks_around_and_takes_any_reference():
    references = [["four", None, "4"], ["five"], ["six"], ["Seven"]]
    assert value("exact_match", [" 4 ", "five", "si x", "seven"], references) == 50
    assert value("exact_match", [" 4 ", "five", "si x", "seven"], references, lowercase=True) == 75


def test_coqa_ignores_case_punctuation_and_articles():
    assert value("coqa_f1", ["The cat's hat."], [["cats a hat"]]) == 100
    assert value("coqa_f1", ["a red hat"], [["red coat and scarf"]]) == pytest.approx(100 * 2 / 6)


def test_coqa_leaves_each_human_answer_out_once():
    # against the others: without "cat" only "dog" is left (0), without "dog" there is "cat" (1)
    assert value("coqa_f1", ["cat"], [["cat", "dog"]]) == 50
    assert value("coqa_f1", ["cat"], [["cat", "cat", "dog"]]) == 100
    assert value("coqa_f1", ["cat"], [["cat", None]]) == 100


def test_coqa_of_empty_answers():
    assert value("coqa_f1", ["the"], [["a"]]) == 100
    assert value("coqa_f1", ["cat"], [["a"]]) == 0


def test_distinct_pools_the_whole_output():
    hypotheses, references = ["a b a", "a b"], [["x"], ["x"]]
    assert value("distinct1", hypotheses, references) == pytest.approx(40)
    assert value("distinct2", hypotheses, references) == pytest.approx(200 / 3)
    assert value("distinct4", hypotheses, references) == 0


def test_distinct_counts_characters_where_there_are_no_blanks():
    assert value("distinct1", ["好好学"], [["x"]], language="zh") == pytest.approx(200 / 3)
    assert value("distinct1", ["A a"], [["x"]]) == 100
    assert value("distinct1", ["A a"], [["x"]], lowercase=True) == 50
