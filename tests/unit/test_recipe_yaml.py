"""Recipes: YAML 1.2, wrong values, and files that are no recipe at all."""

from pathlib import Path

import pytest
from recipe_texts import MINIMAL, mistakes, ok, write

from unilmctl.recipe import load


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_scalars_are_those_of_yaml_1_2() -> None:
    recipe = ok(
        "seed: 010\nrun: no\n"
        "data: {train: {files: [12:30, on, 2024-01-01], source: yes, target: 0o}}\n"
        "model: {init: 1_000}\nfinetune: {learning_rate: 1e-4, steps: 1e5, warmup: 0x10, evaluate_every: 0o17}\n"
    )
    assert recipe.seed == 10
    assert recipe.run == Path("no")
    assert recipe.data.train.files == [Path("12:30"), Path("on"), Path("2024-01-01")]
    assert (recipe.data.train.source, recipe.data.train.target) == ("yes", "0o")
    assert recipe.model.init == Path("1_000")
    assert recipe.finetune.learning_rate == 1e-4
    assert (recipe.finetune.steps, recipe.finetune.warmup, recipe.finetune.evaluate_every) == (100_000, 16, 15)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("finetune: {freeze_embeddings: no}", "finetune.freeze_embeddings: must be true or false; got 'no'"),
        ("finetune: {steps: 1_000}", "finetune.steps: must be a whole number; got '1_000'"),
        ("finetune: {steps: '5'}", "finetune.steps: must be a whole number; got '5'"),
        ("finetune: {steps: true}", "finetune.steps: must be a whole number; got true"),
        ("finetune: {steps: 2.5}", "finetune.steps: must be a whole number; got 2.5"),
        ("finetune: {steps: 1e300}", "finetune.steps: must be at most 1000000000; got 1"),
        ("finetune: {steps: null}", "finetune.steps: must be a whole number; got nothing (null)"),
        ("finetune: {clip: .inf}", "finetune.clip: must be a finite number; got inf"),
        ("finetune: {clip: .nan}", "finetune.clip: must be a finite number; got nan"),
        ("finetune: {weight_decay: [1]}", "finetune.weight_decay: must be a number; got a list"),
        ("finetune: {weight_decay: {a: 1}}", "finetune.weight_decay: must be a number; got a mapping"),
        ("finetune: {label_smoothing: 1}", "finetune.label_smoothing: must be less than 1; got 1"),
        ("finetune: {learning_rate: 0}", "finetune.learning_rate: must be more than 0; got 0"),
        ("finetune: 7", "finetune: must be a mapping of keys to values; got 7"),
        ("run: ''", "run: must be a path; got ''"),
        ("run: 7", "run: must be a path; got 7"),
        ('run: "a\\0b"', "run: must be a path; got 'a\\x00b'"),
        ("evaluate: {metrics: []}", "evaluate.metrics: must not be empty"),
        ("evaluate: {metrics: bleu}", "evaluate.metrics: must be a list, such as [a, b]; got 'bleu'"),
        ("evaluate: {metrics: [bleu, blue]}", "evaluate.metrics[1]: must be one of bleu, "),
        ("evaluate: {language: English}", "evaluate.language: must look like ^[a-z]{2,3}(-[a-z0-9]+)*$; got 'English'"),
        ("generate: {forbid: [5]}", "generate.forbid[0]: must be text (put it in quotes); got 5"),
        ("generate: {forbid: ['']}", "generate.forbid[0]: must not be empty"),
        ("generate: {max-length: 5}", "generate.max-length: unknown key; did you mean 'max_length'?"),
        ("generate: {qqq: 5}", "generate.qqq: unknown key"),
        ("beam: 5", "beam: unknown key; did you mean 'generate.beam'?"),
        (
            "learning_rate: 5",
            "learning_rate: unknown key; did you mean 'pretrain.learning_rate' or 'finetune.learning_rate'?",
        ),
        ("1: 5", "1: unknown key"),
        ("<<: {a: 1}", "<<: unknown key"),
        ("extends: [a]", "extends: must be a path; got a list"),
        ("extends: ''", "extends: must be a path; got ''"),
    ],
)
def test_a_wrong_value_is_named_and_shown(line: str, said: str) -> None:
    (mistake,) = mistakes(MINIMAL + line + "\n")
    assert mistake.startswith("r.yaml:3:")
    assert f": {said}" in mistake


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "r.yaml:1:1: the file is empty; a recipe is a mapping of keys to values"),
        ("# only a comment\n", "r.yaml:1:1: the file is empty; a recipe is a mapping of keys to values"),
        ("\n- a\n", "r.yaml:2:1: the file is a list; a recipe is a mapping of keys to values"),
        ("hello", "r.yaml:1:1: the file is a single value; a recipe is a mapping of keys to values"),
        ("a: 1\n\tb: 2\n", "r.yaml:2:1: not valid YAML: a tab cannot indent; use blanks"),
        ("a: [1\nb: 2\n", "r.yaml:2:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: [1", "r.yaml:1:6: not valid YAML: the text ends too early"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2:1: not valid YAML: a second document ('---'); a recipe is one"),
        ("a: *b\n", "r.yaml:1:4: not valid YAML: found undefined alias 'b'"),
        ("a: 1\nb: \x07\n", "r.yaml:2:4: not valid YAML: character U+0007 is not allowed"),
        (b"a: 1\nb: caf\xe9\n", "r.yaml:2:7: not UTF-8: byte 0xe9"),
        (b"\xff\xfea\x00", "r.yaml:1:1: not UTF-8: byte 0xff"),
        ("[" * 100, "r.yaml:1:51: not valid YAML: nested more than 50 levels deep"),
        ("a: &a [*a]\n", "not valid YAML: too many values (aliases multiply?)"),
        ("#" * 200_001, "r.yaml: a recipe has at most 200,000 bytes, this file has more"),
    ],
)
def test_what_is_no_recipe_at_all_says_where(text: str | bytes, said: str) -> None:
    (mistake,) = mistakes(text)
    assert (
        mistake.endswith(said)
        if said.startswith("not")
        else mistake == said.replace("the text ends too early", "the text ends too early")
    )


def test_aliases_are_read_and_bombs_are_not() -> None:
    shared = ok("data: {train: &files {files: [a]}, valid: *files}\nmodel: {init: m}\n")
    assert shared.data.valid == shared.data.train
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for inner, outer in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{outer}: &{outer} [{', '.join([f'*{inner}'] * 10)}]\n"
    (mistake,) = mistakes(bomb)
    assert "too many values (aliases multiply?)" in mistake


def test_tags_are_refused_and_never_run() -> None:
    text = "data: !!python/object/apply:os.system ['touch hacked']\nseed: !!int 5\nrun: ! x\n"
    found = mistakes(text)
    assert "r.yaml:1:7: the tag '!!python/object/apply:os.system' is refused: a recipe holds plain values" in found
    assert "r.yaml:2:7: the tag '!!int' is refused: a recipe holds plain values" in found
    assert "r.yaml:3:6: the tag '!' is refused: a recipe holds plain values" in found
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('seed: 1\nrun: "a\\ud800"\n', "r.yaml:2:6: not valid YAML: half of a surrogate pair"),
        ('"a\\udfff": 1\n', "r.yaml:1:1: not valid YAML: half of a surrogate pair"),
        ('run: "\\U00110000"\n', "r.yaml:1:9: not valid YAML: chr() arg not in range(0x110000)"),
        ('run: "\\UFFFFFFFF"\n', "r.yaml:1:9: not valid YAML: "),
        ("%YAML " + "1" * 5000 + ".1\n---\nseed: 1\n", "r.yaml:1:7: not valid YAML: Exceeds the limit"),
    ],
)
def test_characters_and_versions_that_there_are_not(text: str, mistake: str) -> None:
    (found,) = mistakes(text)
    assert found.startswith(mistake)


def test_an_override_that_is_not_utf_8_is_refused() -> None:
    for override in ("run=\udcff", "da\udcff.train={files: [a]}"):
        (found,) = mistakes(MINIMAL, override)
        assert found == f"--set {override}: is not UTF-8 text"


def test_keys_that_are_no_words_and_keys_that_come_twice() -> None:
    found = mistakes(MINIMAL + "? [a, b]\n: 1\nfinetune: {steps: 3, warmup: 1,\n  steps: 4}\n")
    assert found == [
        "r.yaml:3:3: a key must be a word",
        "r.yaml:6:3: finetune.steps: this key is there twice, first in line 5",
    ]


def test_a_byte_order_mark_and_windows_lines_are_fine() -> None:
    assert load(write(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())).model.init == Path("m")
