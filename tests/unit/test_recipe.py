"""Recipes: loading, layers, and the text of every mistake."""

import subprocess
import sys
from pathlib import Path

import pytest
from recipe_texts import MINIMAL, SCRATCH, mistakes, ok, write

from unilmctl.errors import DataError, RecipeError
from unilmctl.recipe import (
    dump_yaml,
    find_recipe,
    list_recipes,
    load,
    missing_files,
    require_files,
    walk,
    write_generated,
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_design() -> None:
    recipe = ok(MINIMAL)
    assert recipe.run == Path("runs/r")
    assert recipe.store == Path("runs/r/store")
    assert recipe.tokenizer == Path("m")
    assert recipe.finetune.objective == "pseudo"
    assert (recipe.tokens.max_source, recipe.tokens.max_target) == (464, 48)
    assert recipe.finetune.learning_rate == 7e-5
    assert recipe.model.shape is None


def test_five_mistakes_are_shown_all_five_with_line_and_column() -> None:
    text = """\
data:
  train: {files: [a], sorce: src}
model: {architecture: bert, heads: 7}
tokens: {train: {kind: wordpeice}}
finetune:
  learning_rte: 1e-4
  steps: 0
"""
    assert mistakes(text) == [
        "r.yaml:2:23: data.train.sorce: unknown key; did you mean 'source'?",
        "r.yaml:3:36: model.heads: 7 heads do not divide hidden: 768",
        "r.yaml:4:24: tokens.train.kind: must be one of wordpiece, bpe, sentencepiece; got 'wordpeice'; "
        "did you mean 'wordpiece'?",
        "r.yaml:6:3: finetune.learning_rte: unknown key; did you mean 'learning_rate'?",
        "r.yaml:7:10: finetune.steps: must be at least 1; got 0",
    ]
    with pytest.raises(RecipeError) as caught:
        load("r.yaml")
    assert caught.value.hint == "5 mistakes; docs/recipes.md describes every key"


class TestExtends:
    def test_layers_merge_and_lists_are_replaced(self) -> None:
        Path("base").mkdir()
        write("extends: b.yaml\nfinetune: {steps: 900, warmup: 3}\nrun: runs/a\n", "base/a.yaml")
        write(MINIMAL + "finetune: {steps: 800, clip: 2}\nevaluate: {metrics: [ter, bleu]}\n", "base/b.yaml")
        recipe = ok("extends: base/a.yaml\nfinetune: {steps: 1000}\nevaluate: {metrics: [chrf]}\n", "finetune.clip=3")
        assert (recipe.finetune.steps, recipe.finetune.warmup, recipe.finetune.clip) == (1000, 3, 3)
        assert recipe.evaluate.metrics == ["chrf"]
        assert recipe.run == Path("runs/r"), "the run folder of a parent is not taken over"
        assert recipe.extends is None

    def test_a_mistake_names_the_file_it_is_in(self) -> None:
        write(MINIMAL + "finetune: {stepz: 1,\n  clip: no}\nseed: 1\nseed: 2\n", "b.yaml")
        assert mistakes("extends: b.yaml\nfinetune: {warmup: x}\n") == [
            "r.yaml:2:20: finetune.warmup: must be a whole number; got 'x'",
            "b.yaml:3:12: finetune.stepz: unknown key; did you mean 'steps'?",
            "b.yaml:4:9: finetune.clip: must be a number; got 'no'",
            "b.yaml:6:1: seed: this key is there twice, first in line 5",
        ]

    def test_circles_are_named(self) -> None:
        write("extends: r.yaml\n", "b.yaml")
        assert mistakes("extends: b.yaml\n") == [
            "b.yaml:1:10: extends: a circle: r.yaml -> b.yaml -> r.yaml",
        ]
        assert mistakes("extends: ./r.yaml\n") == ["r.yaml:1:10: extends: a circle: r.yaml -> r.yaml"]

    def test_chains_have_an_end(self) -> None:
        for number in range(30):
            write(f"extends: c{number + 1}.yaml\n", f"c{number}.yaml")
        write(MINIMAL, "c30.yaml")
        assert mistakes("extends: c0.yaml\n") == ["c18.yaml:1:10: extends: more than 20 recipes in a chain"]

    def test_an_absent_parent_is_named(self) -> None:
        assert mistakes("seed: 1\nextends: sub/none.yaml\n") == ["r.yaml:2:10: extends: no such file: sub/none.yaml"]


class TestOverrides:
    def test_values_are_yaml_typed_by_the_schema(self) -> None:
        recipe = ok(
            MINIMAL,
            "finetune.learning_rate=1e-3", "evaluate.metrics=[bleu, ter]", "data.valid={files: [v]}",
            "run=runs/a=b", "finetune.clip=null", "data.train.source=no",
        )  # fmt: skip
        assert recipe.finetune.learning_rate == 1e-3
        assert recipe.evaluate.metrics == ["bleu", "ter"]
        assert recipe.data.valid is not None
        assert recipe.run == Path("runs/a=b")
        assert recipe.finetune.clip is None
        assert recipe.data.train.source == "no"

    def test_the_last_one_wins(self) -> None:
        assert ok(MINIMAL, "seed=3", "seed=4").seed == 4

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("finetune.steps=abc", "finetune.steps: must be a whole number; got 'abc'"),
            ("finetune.stepz=1", "finetune.stepz: unknown key; did you mean 'steps'?"),
            ("finetun.steps=1", "finetun: unknown key; did you mean 'finetune'?"),
            ("finetune.steps=[1", "not valid YAML: the text ends too early"),
            ("finetune.steps", "an override is written section.key=value"),
            ("finetune..steps=1", "an override is written section.key=value"),
            ("=1", "an override is written section.key=value"),
            ("extends=b.yaml", "extends is read from the file; it cannot be set"),
            ("finetune=5", "finetune: must be a mapping of keys to values; got 5"),
            ("finetune={steps: 1, steps: 2}", "steps: this key is there twice, first in line 1"),
            ("finetune.steps=!!int 3", "the tag '!!int' is refused: a recipe holds plain values"),
            ("finetune.warmup=40000", "finetune.warmup: 40000 steps of warm-up in 32000 steps of training"),
        ],
    )
    def test_a_wrong_one_is_named(self, override: str, said: str) -> None:
        assert mistakes(MINIMAL, override) == [f"--set {override}: {said}"]

    def test_they_come_after_the_mistakes_of_the_file(self) -> None:
        found = mistakes(MINIMAL + "zzz: 1\n", "seed=x", "finetune.steps=0")
        assert found == [
            "r.yaml:3:1: zzz: unknown key",
            "--set finetune.steps=0: finetune.steps: must be at least 1; got 0",
            "--set seed=x: seed: must be a whole number; got 'x'",
        ]


def test_a_resolved_recipe_loads_as_itself() -> None:
    recipe = ok(SCRATCH + "run: runs/0x1F\ngenerate: {forbid: ['1e-4', 'no', '~', 'é：']}\n")
    text = dump_yaml(recipe)
    again = load(write(text, "resolved.yaml"))
    assert dump_yaml(again) == text
    assert again.generate.forbid == ["1e-4", "no", "~", "é："]
    assert again.model.shape == recipe.model.shape
    assert recipe.resolved() == again.resolved()


def test_a_resolved_recipe_for_vectors_writes_with_the_objective_that_learns_them() -> None:
    recipe = ok(MINIMAL + "finetune: {task: similar}\n")
    assert recipe.resolved()["finetune"]["objective"] == "causal"
    assert load(write(dump_yaml(recipe), "resolved.yaml")).resolved() == recipe.resolved()


def test_a_resolved_recipe_writes_out_every_key() -> None:
    resolved = ok(SCRATCH + "run: runs/x\n").resolved()
    split = {"target_files", "format", "source", "target", "references"}
    absent = {("data", "valid"), ("data", "test"), ("finetune", "lora"), ("finetune", "distil")}
    for path, _ in walk():
        if path[0] in ("extends", "pretrain", "rows", "tasks") or (path[:2] in absent and len(path) > 2):
            continue
        here = resolved
        for part in path:
            assert part in here, path
            here = here[part]
    assert split < set(resolved["data"]["train"])
    assert resolved["generate"]["max_length"] == 48
    assert resolved["data"]["store"] == "runs/x/store"
    assert resolved["model"]["layers"] == 12


def test_recipes_are_found_by_name_and_by_path() -> None:
    assert find_recipe("e2e").name == "e2e.yaml"
    with pytest.raises(RecipeError, match="^nowhere: no such recipe$") as caught:
        find_recipe("nowhere")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("a path, or one of: chnsenticorp, cnndm, csl")
    with pytest.raises(RecipeError, match=r"^recipes/e2e\.yaml: no such file$") as caught:
        find_recipe("recipes/e2e.yaml")
    assert caught.value.hint == "'e2e' comes with the program: name it without a folder"
    Path("folder").mkdir()
    with pytest.raises(RecipeError, match="^folder: a folder, not a recipe$"):
        find_recipe("folder")
    write(MINIMAL, "e2e")
    assert find_recipe("e2e") == Path("e2e"), "a file of that name comes first"


def test_absent_data_is_named_with_its_source() -> None:
    recipe = ok(
        "data:\n  train: {files: [a, '-'], target_files: [b, c]}\n  valid: {files: [d]}\n"
        "  fetch: >-\n    from there,\n    in two lines\nmodel: {init: m}\n"
    )
    write("x", "c")
    assert missing_files(recipe) == [Path("a"), Path("b"), Path("d")]
    assert missing_files(recipe, ["valid"]) == [Path("d")]
    with pytest.raises(DataError) as caught:
        require_files(recipe, ["train"])
    assert caught.value.message == "a, b: no such file, and r.yaml needs it"
    assert caught.value.hint == "the data: from there, in two lines"
    for name in ("a", "b", "d"):
        write("x", name)
    require_files(recipe)


def test_built_in_data_is_written_where_it_is_absent() -> None:
    text = "data: {generated: numbers, train: {files: [t]}, valid: {files: [d/v]}}\nmodel: {init: m}\n"
    write("mine", "t")
    assert write_generated(ok(text)) == [Path("d/v")]
    assert Path("t").read_text() == "mine"
    assert missing_files(ok(text)) == []
    assert write_generated(ok(MINIMAL)) == []


def test_many_absent_files_are_counted() -> None:
    recipe = ok("data: {train: {files: [a, b, c, d, e]}}\nmodel: {init: m}\n")
    with pytest.raises(DataError, match="^a, b, c and 2 more: no such file, and r.yaml needs it$") as caught:
        require_files(recipe)
    assert caught.value.hint is None


def test_the_list_names_command_and_purpose() -> None:
    listed = {recipe.name: recipe for recipe in list_recipes()}
    assert listed["e2e"].command == "unilmctl finetune recipes/e2e.yaml"
    assert listed["e2e"].about.startswith("E2E NLG")


def test_a_recipe_that_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    write(MINIMAL)

    def refuse(path: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RecipeError, match=r"^r\.yaml: cannot be read: Permission denied$"):
        load("r.yaml")


def test_torch_is_not_loaded() -> None:
    code = "import sys, unilmctl.recipe, unilmctl.examples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
