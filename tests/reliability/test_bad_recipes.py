"""What YAML makes of values that look like others, what an option of the command line may not say, and recipes that
extend each other in circles: all are refused before any work, where they stand.
"""

import os
import re
from pathlib import Path

import pytest
from recipe_texts import MINIMAL, mistakes, ok, write
from test_recipe_schema import KEYS, LEAVES, LISTS, dotted, expect, flat, kind, names

from unilmctl.cli import run
from unilmctl.errors import RecipeError
from unilmctl.recipe import load
from unilmctl.recipe.mistakes import section_of


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SOLE = {
    **dict.fromkeys(("data", "model", "tokens", "finetune", "generate", "evaluate", "seed"), MINIMAL),
    "pretrain": f"{MINIMAL}pretrain: {{}}\n",
}
"""A sound recipe for the keys of a section."""


def of(*types: type) -> list[tuple[str, ...]]:
    """The keys that take one of these types."""
    return [path for path in LEAVES if kind(path).type in types and not kind(path).choices]


def takes_null(path: tuple[str, ...]) -> bool:
    return type(None) in flat(LEAVES[path].annotation)


@pytest.mark.parametrize("path", names(path for path in LEAVES if not takes_null(path)))
def test_a_key_without_a_value_is_refused(path: tuple[str, ...]) -> None:
    expect(path, "~", "must ")


TRAPS = {
    int: ("'5'", "1_000", "2.5", "5,0", "0b11", "12:30", "true", "2024-01-01", ".nan", "-.inf", "--5", "[5]", "{a: 5}"),
    float: ("'1e-4'", "1_0.5", "0,5", "1e", "yes", "true", ".nan", ".inf", "50%", "[0.5]", "1.5.2"),
    bool: ("no", "yes", "on", "Off", "0", "1", "'true'", "T", "[true]"),
}
WORDS = {int: "must be", float: "must be", bool: "must be true or false"}


@pytest.mark.parametrize("path", names(of(*TRAPS)))
def test_values_that_only_look_right_are_refused(path: tuple[str, ...]) -> None:
    for trap in TRAPS[kind(path).type]:
        expect(path, trap, WORDS[kind(path).type])


@pytest.mark.parametrize(
    "path", names(path for path in LEAVES if kind(path).type in (str, Path) and path[:2] != ("rows", "parts"))
)
def test_a_number_is_no_text(path: tuple[str, ...]) -> None:
    for trap in ("010", "1e-4", "true", "0x10", "[a]"):
        expect(path, trap, "must be ")


@pytest.mark.parametrize("path", names(of(list)))
def test_an_item_of_a_list_is_checked(path: tuple[str, ...]) -> None:
    place = rf"r.yaml:\d+:\d+: {re.escape(dotted(path))}\[0\]: must "
    assert any(re.match(place, line) for line in refused(path, "[{a: 1}]"))


def refused(path: tuple[str, ...], value: str) -> list[str]:
    from test_recipe_schema import render

    return mistakes(render(path, f"{path[-1]}: {value}")[0])


@pytest.mark.parametrize(
    "path",
    names(path for path in of(*TRAPS) if not {"mix", "stages", "distil"} & set(path) and path[0] in SOLE),
)
def test_an_option_of_the_command_line_is_checked_alike(path: tuple[str, ...]) -> None:
    (mistake,) = mistakes(SOLE[path[0]], f"{'.'.join(path)}=some")
    assert mistake.startswith(f"--set {'.'.join(path)}=some: {dotted(path)}: must be "), mistake


def circle(length: int) -> str:
    """Recipes that extend each other in a circle; gives the first."""
    for number in range(length):
        write(f"extends: r{(number + 1) % length}.yaml\n{MINIMAL}", f"r{number}.yaml")
    return "r0.yaml"


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_a_circle_of_recipes_is_named(length: int) -> None:
    with pytest.raises(RecipeError, match=r"r\d.yaml:1:10: extends: a circle: r0.yaml -> .*r0.yaml$"):
        load(circle(length))


def chain_of(length: int) -> str:
    for number in range(length):
        write((f"extends: r{number + 1}.yaml\n" if number < length - 1 else "") + MINIMAL, f"r{number}.yaml")
    return "r0.yaml"


def linked() -> str:
    write(f"extends: other.yaml\n{MINIMAL}")
    Path("other.yaml").symlink_to("r.yaml")
    return "r.yaml"


def around() -> str:
    Path("sub").mkdir()
    return write(f"extends: ./sub/../r.yaml\n{MINIMAL}")


def to(target: str, make: str = "") -> str:
    if make == "folder":
        Path(target).mkdir()
    elif make == "pipe":
        os.mkfifo(target)
    elif make == "loop":
        Path(target).symlink_to(target)
    elif make:
        write(make, target)
    return write(f"extends: {target}\n{MINIMAL}")


EXTENDING = {
    "a circle through a link": (linked, "a circle"),
    "a circle through folders": (around, "a circle"),
    "a chain of 21": (lambda: chain_of(22), "more than 20 recipes in a chain"),
    "nothing there": (lambda: to("nowhere.yaml"), "no such file"),
    "a folder": (lambda: to("other", "folder"), "no such file"),
    "a pipe": (lambda: to("other", "pipe"), "no such file"),
    "a link to itself": (lambda: to("other", "loop"), "no such file"),
    "a device": (lambda: to("/dev/zero"), "no such file"),
    "a NUL": (lambda: write(f'extends: "a\\0b"\n{MINIMAL}'), "no such file"),
    "a name that is too long": (lambda: to("x" * 5000), "no such file"),
    "a number": (lambda: to("5"), "must be a path; got 5"),
    "an empty text": (lambda: to("''"), "must be a path; got ''"),
    "a list": (lambda: to("[a, b]"), "must be a path; got a list"),
}


@pytest.mark.parametrize("kind", EXTENDING)
def test_what_cannot_be_extended_is_named(kind: str) -> None:
    make, said = EXTENDING[kind]
    with pytest.raises(RecipeError) as caught:
        load(make())
    (line,) = caught.value.message.splitlines()
    assert re.match(r"r\d*.yaml:1:10: extends: ", line), line
    assert said in line


def test_a_mistake_is_shown_in_the_file_that_makes_it() -> None:
    write("finetune:\n  steps: many\n", "below.yaml")
    found = mistakes(f"extends: below.yaml\n{MINIMAL}finetune: {{beam: 5}}\n", "finetune.warmup=-1")
    assert [line.split(": ")[0] for line in found] == ["r.yaml:4:12", "below.yaml:2:10", "--set finetune.warmup=-1"]


FILES = {
    "sparse terabyte": (lambda path: path.open("wb").truncate(2**40), "has at most 200,000 bytes"),
    "a folder": (lambda path: path.mkdir(), "a folder, not a recipe"),
    "a pipe": (os.mkfifo, "no such recipe"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "no such recipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no such recipe"),
    "nothing in it": (lambda path: path.write_bytes(b""), "r.yaml:1:1: the file is empty"),
    "UTF-16": (lambda path: path.write_bytes(MINIMAL.encode("utf-16")), "r.yaml:1:1: not UTF-8: byte 0xff"),
    "NULs": (lambda path: path.write_bytes(b"\0" * 99), "r.yaml:1:1: not valid YAML: character U+0000"),
    "brackets": (lambda path: path.write_bytes(b"[" * 199_999), "r.yaml:1:51: not valid YAML: nested more than 50"),
    "braces": (lambda path: path.write_bytes(b"{" * 199_999), "r.yaml:1:51: not valid YAML: nested more than 50"),
    "dashes": (lambda path: path.write_bytes(b"- " * 9_999), "r.yaml:1:101: not valid YAML: nested more than 50"),
    "a knot": (lambda path: path.write_bytes(b"a: &a [*a]"), "too many values"),
    "a bomb": (
        lambda path: path.write_text(
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
        ),
        "too many values",
    ),
    "a merge key": (
        lambda path: path.write_text(f"x: &x {{seed: 1}}\n<<: *x\n{MINIMAL}"),
        "r.yaml:2:1: <<: unknown key",
    ),
    "a directive": (lambda path: path.write_text(f"%YAML 9.9\n---\n{MINIMAL}"), "r.yaml:1:1: not valid YAML"),
    "a call": (
        lambda path: path.write_text(f"{MINIMAL}seed: !!python/object/apply:os.system [touch done]"),
        "r.yaml:3:7: the tag '!!python/object/apply:os.system' is refused",
    ),
    "a module": (
        lambda path: path.write_text(f"{MINIMAL}seed: !!python/module:antigravity ''"),
        "the tag '!!python/module",
    ),
    "binary": (lambda path: path.write_text(f"{MINIMAL}seed: !!binary aGk="), "the tag '!!binary' is refused"),
    "a class of its own": (lambda path: path.write_text(f"{MINIMAL}seed: !Exec rm"), "the tag '!Exec' is refused"),
    "two documents": (lambda path: path.write_text(f"{MINIMAL}---\n{MINIMAL}"), "r.yaml:3:1: not valid YAML: a second"),
    "a tab": (lambda path: path.write_text("data:\n\ttrain: 5\n"), "r.yaml:2:1: not valid YAML: a tab cannot indent"),
    "a key of a list": (lambda path: path.write_text(f"? [a]\n: b\n{MINIMAL}"), "r.yaml:1:3: a key must be a word"),
    "an unknown alias": (lambda path: path.write_text("data: *nobody\n"), "r.yaml:1:7: not valid YAML"),
    "a class to call": (lambda path: path.write_text(f"_target_: os.system\n{MINIMAL}"), "_target_: unknown key"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_recipe_is_refused_before_any_work(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, said = FILES[kind]
    make(Path("r.yaml"))
    assert run(["finetune", "r.yaml"]) == 3
    shown = capfd.readouterr()
    assert said in shown.err
    assert all(line.startswith(("error: r.yaml", "hint: ")) for line in shown.err.splitlines())
    assert (shown.out, [path.name for path in Path().iterdir()]) == ("", ["r.yaml"])


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "", ".", "/", "~nobody/x", "-", "a\nb"])
@pytest.mark.parametrize("command", ["finetune", "pretrain", "preprocess"])
def test_a_name_of_nothing_is_refused(command: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, name]) in (2, 3)
    assert capfd.readouterr().err.startswith("error: ")


OVERRIDES = ["", "=", "a", "a=", ".=1", "a..b=1", "seed=[", "seed=!!python/name:os.system x", "extends=x", "seed=1\n2"]
OVERRIDES += [
    "finetune=5",
    "finetune.steps.more=5",
    "data.train.files[0]=b",
    "seed=&a [*a]",
    "no_such.key=1",
    "seed=\0",
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_that_means_nothing_is_refused(override: str) -> None:
    assert all(line.startswith("--set ") for line in mistakes(MINIMAL, override)[:1])


def test_every_section_is_covered() -> None:
    assert {path[0] for path, field in KEYS.items() if section_of(field)} - {path[0] for path in LISTS} <= set(SOLE)
    assert ok(MINIMAL, "seed=0").seed == 0
