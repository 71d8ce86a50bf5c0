"""ROUGE in its three readings, on cases small enough to count by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl import metrics
from unilmctl.errors import DataError
from unilmctl.metrics import Options
from unilmctl.metrics.rouge import longest_common
from unilmctl.metrics.words import coco_splitter, unicode_words

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def value(name, hypotheses, references, **options):
    return metrics.score(name, hypotheses, references, Options(**options)).value


def test_identical_chinese_scores_full_marks():
    from rouge_score.rouge_scorer import RougeScorer

    text = "研究人员发现新的语言模型"
    assert metrics.evaluate([text], [[text]], names=KINDS, options=Options("zh")) == dict.fromkeys(KINDS, 100.0)
    assert RougeScorer(["rouge1"]).score(text, text)["rouge1"].fmeasure == 0  # what there is to mend


def test_chinese_by_hand():
    # 3 of 4 characters, 2 of 3 pairs
    scores = metrics.evaluate(["我喜欢狗"], [["我喜欢猫"]], names=KINDS, options=Options("zh"))
    assert list(scores.values()) == pytest.approx([75, 200 / 3, 75, 75])


def test_chinese_that_is_cut_into_words_keeps_its_words():
    assert value("rouge1", ["我 喜欢 狗"], [["我 喜欢 猫"]], language="zh", tokenize="none") == pytest.approx(200 / 3)


@pytest.mark.parametrize("text", ["Привет, мир", "नमस्ते दुनिया", "Καλημέρα κόσμε", "안녕 세상"])
def test_other_scripts_are_cut_into_words(text):
    assert value("rouge2", [text.upper() + "!"], [[text]], language="ru") == pytest.approx(100)


def test_words_of_any_script():
    assert unicode_words("Ärger, l'été: №5 «नमस्ते»!") == ["ärger", "l", "été", "5", "नमस्ते"]


def test_rouge_tells_precision_and_recall():
    details = metrics.score("rouge1", ["a b"], [["a b c d"]]).details
    assert details == pytest.approx({"precision": 100, "recall": 50})


def test_the_best_reference_counts():
    assert value("rouge1", ["cat"], [["dog", None, "cat"]]) == pytest.approx(100)


def test_english_is_stemmed_unless_told():
    assert value("rouge1", ["running"], [["runs"]]) == pytest.approx(100)
    assert value("rouge1", ["running"], [["runs"]], stem=False) == 0


def test_a_summary_is_scored_by_its_sentences():
    scores = metrics.evaluate(["c d\na b"], [["a b\nc d"]], names=["rougeL", "rougeLsum", "rouge155_L"])
    assert list(scores.values()) == pytest.approx([50, 100, 100])


@pytest.fixture
def exceptions(tmp_path):
    (tmp_path / "noun.exc").write_text("children child\nmice mouse\noxen ox bullock\n\n")
    (tmp_path / "verb.exc").write_text("said say\n")
    (tmp_path / "adj.exc").write_text("best good\n")
    (tmp_path / "adv.exc").write_text("best well\n")
    return tmp_path


def test_rouge155_looks_irregular_words_up(exceptions):
    def pair(a, b, **options):
        return value("rouge155_1", [a], [[b]], **options)

    assert pair("The children said", "the child say") == pytest.approx(100 / 3)
    assert pair("The children said", "the child say", exceptions=exceptions) == pytest.approx(100)
    assert pair("oxen", "ox", exceptions=exceptions) == pytest.approx(100)  # the first base form
    assert pair("best", "well", exceptions=exceptions) == pytest.approx(100)  # the later file wins
    assert pair("mice", "mouse", exceptions=exceptions) == 0  # as in the original: what was looked up is not stemmed
    assert "exceptions:yes" in metrics.score("rouge155_1", ["a"], [["a"]], Options(exceptions=exceptions)).signature


def test_rouge155_stems_with_the_original_porter():
    # NLTK's extended table has dying -> die; Porter's own rules do not
    assert value("rouge1", ["dying"], [["dies"]]) == pytest.approx(100)
    assert value("rouge155_1", ["dying"], [["dies"]]) == 0


def test_rouge155_drops_bracket_names_and_punctuation():
    assert value("rouge155_1", ["-LRB- Word -RRB-"], [["(word)!"]]) == pytest.approx(100)


def test_no_exception_lists(tmp_path):
    with pytest.raises(DataError, match=r"no \.exc files here") as caught:
        value("rouge155_1", ["a"], [["a"]], exceptions=tmp_path)
    assert "wordnet-base" in caught.value.hint


def test_a_broken_exception_list(tmp_path):
    (tmp_path / "noun.exc").write_text("mice mouse\noxen\n")
    with pytest.raises(DataError, match=r"noun\.exc:2: 'oxen' has no base form"):
        value("rouge155_1", ["a"], [["a"]], exceptions=tmp_path)


def test_coco_takes_the_best_precision_and_the_best_recall_apart():
    # precision 3/4 from the first reference, recall 1 from the second
    expected = 100 * 2.44 * 0.75 / (1 + 1.44 * 0.75)
    assert value("coco_rougeL", ["a b c d"], [["a b c x y z", "a"]]) == pytest.approx(expected)
    assert value("coco_rougeL", ["a"], [["b"]]) == 0
    assert value("coco_rougeL", [""], [["b", None]]) == 0


def test_coco_words():
    split = coco_splitter(Options())
    assert split("It's family-friendly, isn't it?") == ["it", "'s", "family-friendly", "is", "n't", "it"]
    assert split("The 'Mill' (£20-25): 3.5/5.") == ["the", "mill", "£", "20-25", "3.5/5"]
    assert coco_splitter(Options(tokenize="none"))("It 's here .") == ["it", "'s", "here", "."]


letters = st.lists(st.sampled_from("abc"), max_size=12)


@settings(deadline=None, max_examples=50)
@given(letters, letters)
def test_longest_common_equals_the_table(left, right):
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert longest_common(left, right) == table[-1][-1]
