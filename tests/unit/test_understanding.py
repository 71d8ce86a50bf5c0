"""Labelled texts: parts of long ones, what a store keeps of a label, the rows, the best span, an epoch of several."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.commands.finetune.lessons import Several, Taught
from unilmctl.data.labelled import Answer, LabelColumns, LabelledText, label_set, labelled_lines
from unilmctl.data.labels import VALUES, VALUES_OF_PARTS, number_of
from unilmctl.data.parts import Part, Parting
from unilmctl.errors import DataError
from unilmctl.generation.labelling import LONGEST_ANSWER, best_span
from unilmctl.objectives import answered, labelled_length, read_row, tagged
from unilmctl.objectives.understanding import fitted
from unilmctl.rows import Frame, Labelled, leaks
from unilmctl.tokens import Tokenizer, train

RANDOM = np.random.default_rng(0)
SIZES = st.integers(0, 30)


def frame(longest: int, truncate: str = "tail") -> Frame:
    return Frame(0, 2, 3, 4, 100, max_source=longest, truncate="head" if truncate == "head" else "tail")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["a bc def ghij, klmno pqrst uvwxyz."], kind="wordpiece", size=60)


@given(SIZES, SIZES, st.integers(5, 40), st.sampled_from(["tail", "head"]))
def test_two_texts_fit_and_the_longer_one_gives_first(one: int, two: int, longest: int, truncate: str) -> None:
    source, second, here = np.arange(one) + 10, np.arange(two) + 50, frame(longest, truncate)
    first, other = fitted(source, second, here)
    row = read_row(source, second, here)
    assert len(row) <= longest
    assert len(row) == int(labelled_length(np.array([one]), np.array([two]), here)[0])
    assert len(row) == min(longest, one + 2 + (two + 1 if two else 0)) or not len(other)
    assert len(first) == one or len(other) == two or abs(len(first) - len(other)) <= 1
    assert list(other) == list(second[: len(other)])
    assert list(first) == list(source[one - len(first) :] if truncate == "head" else source[: len(first)])


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_comes_back_as_it_was(value: float) -> None:
    text = LabelledText("a", None, "f:1", label=repr(value))
    if abs(value) <= 3.4e38:
        assert number_of(np.array(VALUES["regress"](text, ()))) == np.float32(value)


def test_a_quoted_cell_of_csv_goes_on_in_the_next_line(tmp_path: Path) -> None:
    def texts(content: str, task: str = "classify") -> list[LabelledText]:
        (tmp_path / "a.csv").write_text(content)
        columns = LabelColumns("text", None, "label")
        return [raw.parsed() for raw in labelled_lines([tmp_path / "a.csv"], format="csv", columns=columns, task=task)]

    found = texts('label,text\n1,"two\nlines, ""and"" more"\n2,one\n')
    assert [(text.source, text.label) for text in found] == [('two\nlines, "and" more', "1"), ("one", "2")]
    assert [text.where for text in found] == [f"{tmp_path}/a.csv:{line}" for line in (2, 4)]
    (tagged_text,) = texts('text,label\na b,"X\nY"\n', "tag")
    assert tagged_text.tags == ("X", "Y")
    with pytest.raises(DataError, match=r"a\.csv:3: 'label' must be a label, text on one line or a number"):
        texts('text,label\na,1\nb,"one\ntwo"\n')
    with pytest.raises(DataError, match=r"a\.csv:2: a quoted cell begins here and never ends"):
        texts('text,label\n"a,1\nb,2\n')


def test_labels_are_put_in_order() -> None:
    def texts(*labels: str) -> list[LabelledText]:
        return [LabelledText("a", None, "f:1", label=label, tags=(label, "O")) for label in labels]

    assert label_set(texts("10", "9", "-1", "9"), "classify") == ("-1", "9", "10")
    assert label_set(texts("10", "9", "x"), "classify") == ("10", "9", "x")
    assert label_set(texts("B", "A"), "tag") == ("A", "B", "O")
    asked = LabelledText("q", "abc", "f:1", answers=(Answer("a", 0),))
    assert label_set([asked], "span") == ()
    assert label_set([asked, asked._replace(answers=())], "span") == ("",)


@given(
    words=st.lists(st.sampled_from(["a", "bc", "def", "ghij", "uvwxyz", "ÿ"]), max_size=30), longest=st.integers(4, 20)
)
def test_every_word_is_tagged_once(tokenizer: Tokenizer, words: list[str], longest: int) -> None:
    (parts,) = Parting("tag", longest, 1).parts(tokenizer, [(words, None)])
    assert sum(len(part.marks) for part in parts) == len(words)
    assert all(len(part.source) <= longest - 2 for part in parts)
    tags = tuple("xyz"[number % 3] for number in range(len(words)))
    values = list(VALUES_OF_PARTS["tag"](LabelledText(words, None, "f:1", tags=tags), parts, ("x", "y", "z")))
    assert [value for part in values for value in part if value] == ["xyz".index(tag) + 1 for tag in tags]
    for part, value in zip(parts, values, strict=True):
        row = tagged(Labelled(np.array(part.source, np.int64), np.array([], np.int64), np.array(value)),
                     frame(longest), RANDOM, head="t")  # fmt: skip
        assert row.labels["t"].slots.tolist() == [mark + 1 for mark in part.marks]
        assert leaks(row) == []


@given(
    words=st.lists(st.sampled_from(["a", "bc,", "def", "ghij", "uvwxyz."]), min_size=1, max_size=30),
    longest=st.integers(12, 30),
    stride=st.integers(1, 20),
    data=st.data(),
)
def test_windows_hold_the_whole_text_and_answers_come_back(
    tokenizer: Tokenizer, words: list[str], longest: int, stride: int, data: st.DataObject
) -> None:
    context = " ".join(words)
    place = data.draw(st.integers(0, len(words) - 1))
    start = len(" ".join(words[:place])) + bool(place)
    answer = Answer(words[place].strip(",."), start)
    (parts,) = Parting("span", longest, stride).parts(tokenizer, [("a bc", context)])
    covered = {mark for part in parts for mark in part.marks[:-1]}
    assert covered == set(tokenizer.encode_placed([context])[0][1])
    text = LabelledText("a bc", context, "f:1", answers=(answer,))
    values = list(VALUES_OF_PARTS["span"](text, parts, ()))
    for part, value in zip(parts, values, strict=True):
        assert len(part.source) + len(part.second) + 3 <= longest
        if value:
            assert context[part.marks[value[0]] : part.marks[value[1] + 1]].strip() == answer.text
    if stride + 6 <= longest - 3 - len(parts[0].source):
        assert any(values)


def test_a_question_is_labelled_where_its_answer_begins_and_ends() -> None:
    question, text = np.array([11, 12]), np.array([21, 22, 23])
    row = answered(Labelled(question, text, np.array([1, 2])), frame(20), RANDOM, head="s")
    assert row.labels["s"].slots.tolist() == [0, 4, 5, 6]
    assert row.labels["s"].targets.tolist() == [0, 0, 1, 2]
    none = answered(Labelled(question, text, np.array([], np.int64)), frame(20), RANDOM, head="s")
    assert none.labels["s"].targets.tolist() == [3, 0, 0, 0]
    assert leaks(row) == leaks(none) == []


@settings(max_examples=30)
@given(st.integers(1, 80), st.integers(0, 2**31))
def test_the_best_span_is_the_best_of_all(size: int, seed: int) -> None:
    scores = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed))
    value, first, last = best_span(scores)
    sums = {
        (begin, end): float(scores[begin, 0] + scores[end, 1])
        for begin in range(size)
        for end in range(begin, min(size, begin + LONGEST_ANSWER))
    }
    assert (first, last) in sums
    assert value == max(sums.values())


def test_an_epoch_has_each_example_as_often_as_its_weight_says() -> None:
    def taught(count: int, weight: float) -> Taught:
        lesson = type("One", (), {"weight": weight, "task": "classify"})()
        return Taught(lesson, range(count), frame(9), read_row, "pseudo", 1)  # type: ignore[arg-type]

    assert taught(5, 1.0).chosen(1, 0).tolist() == [0, 1, 2, 3, 4]
    assert sorted(taught(3, 2.0).chosen(1, 0).tolist()) == [0, 0, 1, 1, 2, 2]
    half = [taught(10, 0.5).chosen(1, epoch).tolist() for epoch in range(20)]
    assert {len(set(one)) for one in half} == {5}
    assert {index for one in half for index in one} == set(range(10))
    assert len(taught(4, 1.5).chosen(1, 0)) == 6


def test_examples_of_several_lessons_are_found_by_their_number() -> None:
    class One:
        def __init__(self, name: str) -> None:
            self.name = name

        def example(self, index: int) -> str:
            return f"{self.name}{index}"

    several = Several([One("a"), One("b")], np.array([0, 3]))  # type: ignore[list-item]
    assert [several[index][1] for index in (0, 2, 3, 5)] == ["a0", "a2", "b0", "b2"]
    assert Part([1], [], []).second == []
