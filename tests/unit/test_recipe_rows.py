"""Recipes: rows of their own, named by entries of the mix."""

from pathlib import Path

import pytest
from recipe_texts import SCRATCH, mistakes, ok

from unilmctl.recipe import dump_yaml, load

ROW = "{name: mine, parts: [{take: text, time: i, predict: next}]}"
PAIR = "{name: two, parts: [{take: source, time: 0}, {take: target, time: 5, until: 2*i+9, predict: this}]}"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_row_is_found_by_its_name_and_written_out() -> None:
    recipe = ok(
        f"{SCRATCH}rows: [{ROW}, {PAIR}]\npretrain: {{mix: [{{objective: custom, row: two, pair: adjacent}}]}}\n"
    )
    assert recipe.row("two").of_pairs
    assert not recipe.row("mine").of_pairs
    assert recipe.row("two").written()["parts"] == [
        {"take": "source", "of": "all", "time": "0"},
        {"take": "target", "of": "all", "time": "5", "until": "2*i+9", "predict": "this"},
    ]
    Path("resolved.yaml").write_text(dump_yaml(recipe))
    assert load("resolved.yaml").resolved() == recipe.resolved()
    assert "rows" not in ok(SCRATCH).resolved()


@pytest.mark.parametrize(
    ("rows", "mix", "said"),
    [
        (
            ROW,
            "{objective: custom}",
            "pretrain.mix[0].row: the objective 'custom' and the name of a row belong together",
        ),
        (
            ROW,
            "{objective: partial, row: mine}",
            "pretrain.mix[0].row: the objective 'custom' and the name of a row belong together",
        ),
        (ROW, "{objective: custom, row: yours}", "pretrain.mix[0].row: there is no 'yours' among rows"),
        (
            PAIR,
            "{objective: custom, row: two}",
            "pretrain.mix[0].pair: 'two' is made of a source and a target: pair must be adjacent",
        ),
        (f"{ROW}, {ROW}", "{objective: partial}", "rows[1].name: a second 'mine'; give each a name of its own"),
        (
            "{name: mine, parts: [{take: text, time: 0.5}]}",
            "{objective: custom, row: mine}",
            "rows[0].parts[0].time: must be text (put it in quotes); got 0.5",
        ),
        (
            "{name: mine, parts: [{take: text, tim: 0}]}",
            "{objective: custom, row: mine}",
            "rows[0].parts[0].tim: unknown key; did you mean 'time'?",
        ),
    ],
)
def test_mistakes_in_rows_are_told_with_their_place(rows: str, mix: str, said: str) -> None:
    found = mistakes(f"{SCRATCH}rows: [{rows}]\npretrain: {{mix: [{mix}]}}\n")
    assert said in [line.split(": ", 1)[1] for line in found]


def test_a_row_that_nothing_uses_is_refused() -> None:
    (found,) = mistakes(f"{SCRATCH}rows: [{ROW}]\n")
    assert found.endswith("rows: there is neither a mix nor finetune.row to use them")


def test_a_row_for_pairs() -> None:
    recipe = ok(f"{SCRATCH}rows: [{PAIR}]\nfinetune: {{row: two, objective: causal}}\n")
    assert (recipe.place("rows.0"), recipe.place("rows.0.parts.1.take")) == ("r.yaml:4:8", "r.yaml:4:60")
    assert recipe.resolved()["rows"][0]["name"] == "two"


@pytest.mark.parametrize(
    ("finetune", "said"),
    [
        ("row: mine, objective: causal", "finetune.row: there is no 'mine' among rows"),
        ("row: two", "finetune.objective: say as well how a model that learnt 'two' writes"),
        (
            "row: two, objective: causal, task: classify",
            "finetune.row: a row of your own is for the task 'generate'",
        ),
        (
            "row: two, objective: causal, source_mask: 0.1",
            "finetune.source_mask: what is masked is said by the parts of 'two'",
        ),
    ],
)
def test_what_a_row_for_pairs_needs(finetune: str, said: str) -> None:
    found = mistakes(f"{SCRATCH}rows: [{PAIR}]\nfinetune: {{{finetune}}}\n")
    assert said in [line.split(": ", 1)[1] for line in found]
