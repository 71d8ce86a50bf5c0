"""The command line as a user and a shell see it: streams, exit codes, pipes, signals."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Unilmctl

from unilmctl import __version__, recipe
from unilmctl.files import write_manifest
from unilmctl.model import Encoder, ModelConfig
from unilmctl.tokens import train
from unilmctl.weights import ModelCard, save_model

COMMANDS = ["preprocess", "convert", "pretrain", "finetune", "generate", "score", "evaluate", "recipes", "inspect"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a random encoder of one layer: what it writes is nonsense, one line for each line."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = train(["a b c d e", "some words to read"], kind="wordpiece", size=40)
    config = ModelConfig(
        vocabulary=tokenizer.size, hidden=16, layers=1, heads=2, feedforward=32, positions=64, pad=tokenizer.roles.pad
    )
    save_model(folder, Encoder(config), ModelCard(max_source=32, max_target=8), tokenizer)
    write_manifest(folder)
    return folder


def shell(command: str, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """A command line in bash, with `unilmctl` as a user calls it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip


def test_help_names_every_command(unilmctl: Unilmctl) -> None:
    done = unilmctl("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines()] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, unilmctl: Unilmctl) -> None:
    done = unilmctl(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: unilmctl {command}")


def test_the_version(unilmctl: Unilmctl) -> None:
    done = unilmctl("--version")
    assert (done.returncode, done.stdout) == (0, f"unilmctl {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["inspect"]])
def test_no_command_is_a_usage_error_with_help(arguments: list[str], unilmctl: Unilmctl) -> None:
    done = unilmctl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: unilmctl")


def test_a_wrong_option_is_one_line_and_a_hint(unilmctl: Unilmctl) -> None:
    done = unilmctl("generate", "--beem", "5")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("error: No such option: --beem")
    assert second == "hint: unilmctl generate --help shows what it takes"


def test_recipes_alone_lists_them(unilmctl: Unilmctl) -> None:
    done = unilmctl("recipes")
    assert done.returncode == 0
    assert {entry.name for entry in recipe.list_recipes()} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_a_recipe_with_five_mistakes_shows_all_five(tmp_path: Path, unilmctl: Unilmctl) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data:\n  train: {files: [a.txt]}\n  on_bad_line: perhaps\nfinetune:\n  learning_rte: 1e-4\n  steps: -1\n"
        "generate: {beam: five}\nmodle: {}\nmodel: {init: models/bert}\n"
    )
    done = unilmctl("finetune", "bad.yaml")
    assert (done.returncode, done.stdout) == (3, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == [
        f"bad.yaml:{place}" for place in ("3:16", "5:3", "6:10", "7:18", "8:1")
    ]
    assert all(line.startswith("error: ") for line in lines[:-1])
    assert lines[-1].startswith("hint: 5 mistakes")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["finetune", "nowhere.yaml"], 3, "error: nowhere.yaml: no such recipe"),
        (["recipes", "show", "nothing"], 3, "error: nothing: no such recipe"),
        (["evaluate", "nowhere.txt", "absent.txt"], 4, "error: absent.txt"),
        (["inspect", "store", "nowhere"], 4, "error: nowhere: no token store"),
        (["inspect", "run", "nowhere"], 4, "error: nowhere: no log.jsonl"),
        (["inspect", "model", "nowhere"], 5, "error: nowhere"),
        (["generate", "--model", "nowhere"], 5, "error: nowhere"),
        (["generate"], 5, "error: runs/latest: there is no last run"),
        (["convert", "nowhere", "there"], 5, "error: nowhere"),
        (["score", "--model", "nowhere"], 5, "error: nowhere"),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], code: int, message: str, unilmctl: Unilmctl) -> None:
    done = unilmctl(*arguments)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(message), done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_absent_data_is_one_line_that_says_where_it_comes_from(unilmctl: Unilmctl) -> None:
    done = unilmctl("preprocess", "e2e")
    assert done.returncode == 4
    assert done.stderr.splitlines()[0].startswith("error: data/e2e/")
    assert done.stderr.splitlines()[1].startswith("hint: the data: ")


def test_scores_come_out_as_a_table_and_as_json(tmp_path: Path, unilmctl: Unilmctl) -> None:
    (tmp_path / "out.txt").write_text("a b c d e\nthe same words\n")
    (tmp_path / "truth.txt").write_text("a b c d e\nthe same words\n")
    arguments = ["evaluate", "out.txt", "truth.txt", "--metric", "exact_match", "--metric", "bleu"]
    done = unilmctl(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["exact_match", "100.00"],
        ["bleu", "100.00"],
    ]
    scores = json.loads(unilmctl(*arguments, "--json").stdout)["scores"]
    assert [score["name"] for score in scores] == ["exact_match", "bleu"]


def test_two_lines_in_two_lines_out(model: Path, tmp_path: Path) -> None:
    done = shell(f"printf 'a\\nb\\n' | unilmctl generate --model {model} --beam 5 | wc -l", tmp_path)
    assert done.stdout.strip() == "2", done.stderr


def test_output_is_in_the_order_of_the_input(model: Path, unilmctl: Unilmctl) -> None:
    lines = ["some words to read", "a", "", "b c d e a b c", "to"]
    together = unilmctl("generate", "--model", model, "--beam", 2, stdin="\n".join(lines) + "\n")
    assert together.returncode == 0, together.stderr
    alone = [unilmctl("generate", "--model", model, "--beam", 2, stdin=line + "\n").stdout for line in lines[:2]]
    answers = together.stdout.split("\n")[:-1]
    assert len(answers) == len(lines)
    assert answers[:2] == [text.removesuffix("\n") for text in alone]
    assert answers[2] == ""


def test_data_goes_to_stdout_and_nothing_else(model: Path, unilmctl: Unilmctl) -> None:
    done = unilmctl("--quiet", "generate", "--model", model, "--json", stdin='{"src": "a b", "id": 7}\n')
    assert (done.returncode, done.stderr) == (0, "")
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert answer["id"] == 7
    assert set(answer["hypotheses"][0]) == {"text", "tokens", "score", "token_scores"}


def test_a_reader_that_leaves_is_no_error(model: Path, tmp_path: Path) -> None:
    """The input never ends, so the program must notice that nobody reads its output."""
    command = f"yes a | unilmctl generate --model {model} --beam 1 | head -1 | wc -l; echo ${{PIPESTATUS[1]}}"
    done = shell(command, tmp_path)
    assert (done.stdout.split(), done.stderr) == (["1", "141"], "")


def test_a_line_typed_into_a_pipe_is_answered_before_the_end_of_input(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unilmctl", "generate", "--model", str(model), "--beam", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"a b c\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, "no answer while the input was open"
            assert os.read(process.stdout.fileno(), 1 << 16).endswith(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_an_interrupt_ends_with_130(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unilmctl", "generate", "--model", str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\n")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert b"Traceback" not in process.stderr.read()


def test_a_full_disk_is_74(model: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = shell(f"printf 'a\\n' | unilmctl generate --model {model} > /dev/full", tmp_path)
    assert done.returncode == 74, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_line_names_its_place(model: Path, unilmctl: Unilmctl) -> None:
    done = unilmctl("generate", "--model", model, stdin='{"src": "a"}\n{"src": \n')
    assert done.returncode == 4
    assert ":2:" in done.stderr.splitlines()[-1] or any(":2:" in line for line in done.stderr.splitlines())


def test_a_mask_is_drawn(tmp_path: Path, unilmctl: Unilmctl) -> None:
    done = unilmctl("inspect", "mask", "a b", "c d", "--output", "mask.svg")
    assert done.returncode == 0, done.stderr
    assert "[CLS]" in done.stdout
    assert (tmp_path / "mask.svg").read_text().startswith("<svg")


def test_text_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    done = shell("PYTHONIOENCODING=latin-1 unilmctl inspect mask 甲乙 丙", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "丙" in done.stdout


def test_a_model_is_described(model: Path, unilmctl: Unilmctl) -> None:
    done = unilmctl("inspect", "model", model, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
