"""The papers' text preparation, rule by rule; kept defects are marked."""

import pytest

from unilmctl import metrics
from unilmctl.errors import DataError, UsageError
from unilmctl.metrics import Options
from unilmctl.metrics import postprocess as post

REJOINED = [
    ("( a [ b { c", "-LRB- a -LSB- b -LCB- c"),
    ('" a " b " c', "`` a '' b `` c"),
    ("' a ' b", "` a ' b"),
    ("don ' t isn ' t", "do n't is n't"),
    ("can ' t", "ca n't"),
    ("he ' s they ' ll i ' d", "he 's they 'll i 'd"),
    ("we ' re", "we ` re"),
    ("wait . . . what", "wait ... what"),
    ("$ 3 , 000 , 000", "$ 3,000,000"),
    ("3 . 03 4 . x", "3.03 4 . x"),
    ("a , 3", "a , 3"),
    ("a - - b", "a -- b"),
    ("well - known man", "well-known man"),
    ("- a -", "- a -"),
    ("a - , b", "a - , b"),
    (", - a", ", - a"),
    ("a - ( b", "a - -LRB- b"),
    ("", ""),
    ("the U . N . said", "the U.N. . said"),  # defect: the last full stop twice
    ("U . S . President J . Smith", "U.S.PresidentJ . President J . Smith"),  # defect: glued and written again
    ("U . S . A . won", "U.S. . A . won"),  # defect: never beyond the second initial
]


@pytest.mark.parametrize(("text", "expected"), REJOINED)
def test_rejoin(text, expected):
    assert post.rejoin(text, names=post.PENN) == expected


def test_gigaword():
    assert post.gigaword("( [UNK] & <unk> < > ) 10 , 100") == "-lrb- UNK &amp; UNK &lt; &gt; -rrb- #0,#00"


def test_xsum_leaves_quotes_and_hyphens():
    assert post.xsum('" well - known ( man ) don ' + "' t pay 3 , 000 f(x) [ UNK ]") == (
        '" well - known -LRB- man -RRB- do n' + "'t pay 3,000 f -LRB- x -RRB- [ UNK ]"
    )


def test_questions_are_lowered_after_rejoining():
    assert post.squad_question("What did U . N . say ( <unk>") == "what did u.n. . say -lrb- <unk>"


def test_cnndm_parts_sentences_and_drops_short_ones():
    text = "one two three four five [X_SEP] too short this is [X_SEP] six seven eight nine ten"
    assert post.cnndm(text) == "one two three four five\nsix seven eight nine ten"
    assert post.cnndm(text.replace(" [X_SEP] ", "\n")) == post.cnndm(text)


def test_cnndm_drops_what_was_said():
    said = "a b c d e f g h i j"
    seven, eight = "a b c d e f g x y z", "A b c d e f g h y z"
    assert post.cnndm(f"{said} [X_SEP] {seven}") == f"{said}\n{seven}"  # 0.7 is not too much
    assert post.cnndm(f"{said} [X_SEP] {eight}") == said
    # the words of a dropped sentence count as said: y and z are old in the third one
    third = "y z a b c d e n1 n2 n3"
    assert post.cnndm(f"{said} [X_SEP] {eight} [X_SEP] {third} n4 n5") == f"{said}\n{third} n4 n5"
    assert post.cnndm(f"{said} [X_SEP] {eight} [X_SEP] y z a b c d e f n1 n2") == said


def test_cnndm_is_cut_to_its_length():
    sentences = [" ".join(f"w{k}_{n}" for n in range(100)) for k in range(3)]
    text = " [X_SEP] ".join(sentences)
    assert [len(line.split()) for line in post.cnndm(text).split("\n")] == [100, 60]
    assert [len(line.split()) for line in post.cnndm_v1(text).split("\n")] == [70]


def test_brackets_inside_words():
    assert post.cnndm("f(x) = y[0] and so on") == "f -LRB- x -RRB- = y -LSB- 0 -RSB- and so on"
    assert post.cnndm_v1("f(x) = y[0] and so on") == "f(x) = y[0] and so on"


def test_cnndm_references():
    assert post.cnndm_reference(" a b . <S_SEP> c d . ") == "a b .\nc d ."


def scores(task, hypotheses, references, sources=None):
    preset = metrics.task(task)
    outputs, truths = preset.prepare(hypotheses, references, sources)
    return metrics.evaluate(outputs, truths, names=preset.metrics, options=preset.options(Options()))


def test_cnndm_scores_whole_summaries():
    hypothesis = "one two three four five [X_SEP] six seven eight nine ten"
    reference = "six seven eight nine ten <S_SEP> one two three four five"
    found = scores("cnndm", [hypothesis], [[reference, None]])
    assert list(found) == ["rouge155_1", "rouge155_2", "rouge155_L"]
    assert found["rouge155_L"] == pytest.approx(100)


def test_questions_are_grouped_by_their_source():
    hypotheses = ["who is it ?", "what is that thing ?", "when was it ?"]
    references = [["what is that ?"], ["what is that thing ?"], ["when was it ?"]]
    prepared = metrics.task("squad_qg").prepare(hypotheses, references, ["A b", "a B ", "c"])
    last, own = ["what is that ?", "what is that thing ?"], ["when was it ?"]
    assert prepared == (["what is that thing ?", "when was it ?"], [last, own])
    found = scores("squad_qg", hypotheses, references, ["a b", "a b", "c"])
    assert found == pytest.approx({"bleu": 100, "coco_rougeL": 100})
    assert scores("squad_qg", hypotheses, references)["bleu"] < 90


def test_sources_must_be_as_many():
    with pytest.raises(DataError, match="1 hypotheses, references for 1 and 2 sources"):
        metrics.task("squad_qg").prepare(["a"], [["a"]], ["x", "y"])


def test_an_unknown_task():
    with pytest.raises(UsageError, match="unknown task 'cnn'") as caught:
        metrics.task("cnn")
    assert "cnndm" in caught.value.hint


def test_what_tasks_set_and_users_override():
    assert metrics.task("csl").options(Options()).language == "zh"
    assert metrics.task("csl").options(Options("ja")).language == "ja"
    assert metrics.task("multi30k").options(Options()) == Options(lowercase=True, tokenize="none", smooth="none")
    assert metrics.task("multi30k").options(Options(tokenize="13a")).tokenize == "13a"
    assert metrics.task(None).options(Options("de")) == Options("de")


@pytest.mark.parametrize("name", metrics.TASKS)
def test_every_task_scores(name):
    text = "the white cat sat on the mat"
    found = scores(name, [text], [[text]])
    assert found
    assert all(figure == pytest.approx(100) for key, figure in found.items() if key != "nist")
