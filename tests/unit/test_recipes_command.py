"""`unilmctl recipes`: list, show, copy, check."""

from pathlib import Path

import pytest

from unilmctl import recipe
from unilmctl.commands import recipes as command
from unilmctl.errors import DataError, RecipeError, UsageError


def test_every_recipe_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    command.run_list()
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {entry.name for entry in recipe.list_recipes()}
    assert all(len(line.split()) > 3 for line in lines[1:])


def test_what_is_shown_loads_to_the_same_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run_show(recipe="quickstart", settings=["finetune.steps=700"])
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out)
    shown = recipe.load(path)
    assert shown.finetune.steps == 700
    assert shown.resolved() == recipe.load("quickstart", ["finetune.steps=700"]).resolved()


def test_a_copy_is_the_file_itself(tmp_path: Path) -> None:
    command.run_copy(recipe="quickstart", destination=tmp_path)
    assert (tmp_path / "quickstart.yaml").read_bytes() == recipe.find_recipe("quickstart").read_bytes()


@pytest.mark.parametrize(("name", "trains"), [("quickstart", "finetune"), ("pretrain_bert", "pretrain")])
def test_a_copy_says_how_it_is_run(name: str, trains: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.yaml"
    command.run_copy(recipe=name, destination=target)
    assert capsys.readouterr().err.endswith(f"change its data paths, then: unilmctl {trains} {target}\n")


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"mine.yaml: exists already"):
        command.run_copy(recipe="quickstart", destination=path)
    assert path.read_text() == "mine"


def test_a_sound_recipe_has_no_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    command.run_check(recipe="quickstart", settings=[])
    assert capsys.readouterr().err.endswith("quickstart.yaml: no mistakes\n")


def test_all_mistakes_are_reported_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "data:\n  train: {files: [a.txt]}\n  on_bad_line: perhaps\nfinetune:\n  learning_rte: 1e-4\n  steps: -1\n"
        "generate: {beam: five}\nmodle: {}\nmodel: {init: models/bert}\n"
    )
    with pytest.raises(RecipeError) as caught:
        command.run_check(recipe=str(path), settings=[])
    lines = caught.value.message.splitlines()
    places = [line.removeprefix(f"{path}:").split(": ")[0] for line in lines]
    assert places == ["3:16", "5:3", "6:10", "7:18", "8:1"]
    assert "did you mean 'learning_rate'?" in caught.value.message


def test_absent_data_is_a_data_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: {files: [nowhere.jsonl]}, fetch: the moon}\nmodel: {architecture: bert}\n"
                    "tokens: {train: {kind: bpe}}\n")  # fmt: skip
    with pytest.raises(DataError, match="nowhere.jsonl: no such file") as caught:
        command.run_check(recipe=str(path), settings=[])
    assert caught.value.hint == "the data: the moon"
