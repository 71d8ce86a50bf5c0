"""The parts of a loss in the log."""

import json
import math

import pytest

from unilmctl.fitting.parts import flattened, parts_of, tallies_of
from unilmctl.training import Tally

TALLIES = {
    (0, "lm"): Tally(30.0, 10, 4.0),
    (1, "lm"): Tally(5.0, 5, 5.0),
    (1, "grade"): Tally(3.0, 2, math.nan),
}


def test_parts_have_loss_labels_and_accuracy() -> None:
    parts = parts_of(TALLIES, ["bidirectional", "seq2seq"])["parts"]
    assert parts == {
        "bidirectional/lm": {"loss": 3.0, "labels": 10, "accuracy": 0.4},
        "seq2seq/grade": {"loss": 1.5, "labels": 2},
        "seq2seq/lm": {"loss": 1.0, "labels": 5, "accuracy": 1.0},
    }


def test_without_names_a_part_is_called_after_its_head() -> None:
    heads = {(0, "lm"): Tally(1.0, 2, 1.0), (0, "topic"): Tally(1.0, 1, 0.0)}
    assert list(parts_of(heads)["parts"]) == ["lm", "topic"]


def test_one_part_needs_no_word() -> None:
    assert parts_of({(0, "lm"): Tally(1.0, 2, 1.0)}, ["x"]) == {}


def test_sums_of_tallies_are_kept_as_numbers() -> None:
    sums = {"steps": 2.0, **{name: 2 * value for name, value in flattened(TALLIES).items()}}
    again = tallies_of(json.loads(json.dumps(sums, allow_nan=False)))
    assert again.keys() == TALLIES.keys()
    assert again[0, "lm"] == Tally(60.0, 20, 8.0)
    assert again[1, "grade"].accuracy is None
    assert again[1, "grade"].loss == pytest.approx(TALLIES[1, "grade"].loss)
