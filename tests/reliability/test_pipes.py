"""Readers that leave, streams that are closed, disks that are full, terminals that are narrow or can do nothing: the
exit code says what happened, data holds no colour, and memory stays flat.
"""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from processes import resident
from test_command_line import shell
from tiny_writer import model_folder

ANSI = re.compile(r"\x1b|\r(?!\n)")
UNILMCTL = [sys.executable, "-m", "unilmctl"]
GREEDY = "--search greedy --max-length 4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _data(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a b c\nd e\n")
    (tmp_path / "truth.txt").write_text("a b c\nd e\n")


def end(command: str, folder: Path, model: Path) -> tuple[int, str, str]:
    """Exit code of the first `unilmctl` of a pipe, what came out, what was said."""
    done = shell(command.format(model=model, greedy=GREEDY) + "; echo ${PIPESTATUS[0]} > code", folder)
    code = (folder / "code").read_text().strip()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return int(code), done.stdout, done.stderr


EVALUATE = "unilmctl evaluate in.txt truth.txt --metric exact_match"
BAD = "Bad file descriptor"
ENDS: dict[str, tuple[str, int, str]] = {
    "help, and nobody reads": ("unilmctl --help | true", 141, ""),
    "a list of recipes, and one line is read": ("unilmctl recipes list | head -1", 141, ""),
    "a recipe, and nobody reads": ("unilmctl recipes show e2e | sleep 0", 141, ""),
    "a mask, and one line is read": ("unilmctl inspect mask a b | head -1", 141, ""),
    "help, and stdout is closed": ("unilmctl --help >&-", 74, BAD),
    "scores, and stdout is closed": (f"{EVALUATE} >&-", 74, BAD),
    "scores, and stderr is closed": (f"{EVALUATE} 2>&-", 0, ""),
    "scores, and stdin is closed": (f"{EVALUATE} <&-", 0, ""),
    "scores onto a full disk": (f"{EVALUATE} > /dev/full", 74, "No space left on device"),
    "help onto a full disk": ("unilmctl --help > /dev/full", 74, "No space left on device"),
    "an error, and stderr is closed": ("unilmctl inspect run nowhere 2>&-", 4, ""),
    "an error, and stderr is full": ("unilmctl inspect run nowhere 2>/dev/full", 4, ""),
    "answers, and nobody reads": ("yes a | unilmctl generate --model {model} {greedy} | true", 141, ""),
    "answers, and stdin is closed": ("unilmctl generate --model {model} {greedy} <&-", 0, ""),
    "answers, and stdout is closed": ("unilmctl generate in.txt --model {model} {greedy} >&-", 74, BAD),
    "answers, and stderr is closed": ("unilmctl generate in.txt --model {model} {greedy} 2>&-", 0, ""),
    "answers onto a full disk": ("unilmctl generate in.txt --model {model} {greedy} > /dev/full", 74, "No space left"),
    "answers into a file on a full disk": (
        "unilmctl generate in.txt --model {model} {greedy} --output /dev/full", 74, "No space left",
    ),
    "answers into a folder": ("unilmctl generate in.txt --model {model} {greedy} --output .", 74, "Is a directory"),
    "answers to no input": ("unilmctl generate --model {model} {greedy} < /dev/null", 0, ""),
    "scores of answers, and nobody reads": (
        "yes '{{\"src\": \"a\", \"tgt\": \"b\"}}' | unilmctl score --model {model} | true", 141, "",
    ),
}  # fmt: skip


SHORT = {kind for kind in ENDS if "answers" not in kind} | {"answers, and nobody reads", "answers onto a full disk"}


def cases(names: Collection[str], short: Collection[str]) -> list[Any]:
    """Cases by name, those that are not `short` in the page alone."""
    return [pytest.param(name, marks=[] if name in short else [pytest.mark.reliability]) for name in names]


@pytest.mark.parametrize("kind", cases(ENDS, SHORT))
def test_a_stream_that_ends_early_has_its_exit_code(kind: str, model: Path, tmp_path: Path) -> None:
    command, code, said = ENDS[kind]  # 141 may be 0 where all was written before the reader left
    if command.startswith("yes"):
        found = shell(command.format(model=model, greedy=GREEDY) + "; echo ${PIPESTATUS[1]} > code", tmp_path)
        ended, errors = int((tmp_path / "code").read_text()), found.stderr
    else:
        ended, _, errors = end(command, tmp_path, model)
    assert ended == code or (code == 141 and ended == 0 and "yes" not in command)
    assert said in errors
    assert said or not errors


def on_terminal(arguments: list[str], folder: Path, columns: int = 80, **environment: str) -> tuple[int, str, str]:
    """Runs a command whose standard output and error are one terminal each."""
    import fcntl
    import struct
    import termios

    ends = [pty.openpty() for _ in range(2)]
    for _, inner in ends:
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "COLUMNS", "TERM")}
    with subprocess.Popen(
        [*UNILMCTL, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=ends[0][1], stderr=ends[1][1],
        env=clean | {"TERM": "xterm-256color"} | environment,
    ) as process:  # fmt: skip
        for _, inner in ends:
            os.close(inner)
        shown = {outer: b"" for outer, _ in ends}
        open_ends = set(shown)
        while open_ends:
            for outer in select.select(list(open_ends), [], [], 60)[0]:
                try:
                    part = os.read(outer, 1 << 16)
                except OSError:  # the other end was closed
                    part = b""
                shown[outer] += part
                open_ends -= set() if part else {outer}
        code = process.wait(60)
    for outer in shown:
        os.close(outer)
    out, err = (shown[outer].decode().replace("\r\n", "\n") for outer, _ in ends)
    return code, out, err


PLAIN = {"NO_COLOR": {"NO_COLOR": "1"}, "TERM=dumb": {"TERM": "dumb"}}
COMMANDS = {
    "scores": ["evaluate", "in.txt", "truth.txt", "--metric", "exact_match"],
    "an error": ["inspect", "run", "nowhere"],
    "a wrong option": ["generate", "--beem", "5"],
}


@pytest.mark.parametrize("command", cases(COMMANDS, {"scores"}))
@pytest.mark.parametrize("kind", PLAIN)
def test_a_terminal_that_wants_no_colour_gets_none(kind: str, command: str, tmp_path: Path) -> None:
    _, out, err = on_terminal(COMMANDS[command], tmp_path, **PLAIN[kind])
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", out + err)
    assert out + err != ""


@pytest.mark.parametrize("columns", [1, 20, 1000])
def test_a_message_on_a_terminal_of_any_width_is_one_line(columns: int, tmp_path: Path) -> None:
    code, out, err = on_terminal(COMMANDS["an error"], tmp_path, columns, NO_COLOR="1")
    assert (code, out) == (4, "")
    assert re.sub(r"\x1b\[[01]m", "", err).startswith("error: nowhere: no log.jsonl with anything in it\n")


@pytest.mark.parametrize("columns", [1, 20])
def test_a_table_on_a_narrow_terminal_is_drawn(columns: int, tmp_path: Path) -> None:
    code, out, _ = on_terminal(COMMANDS["scores"], tmp_path, columns, NO_COLOR="1")
    assert code == 0
    assert out


@pytest.mark.parametrize("command", cases(COMMANDS, {"an error"}))
@pytest.mark.parametrize("forced", ["", "FORCE_COLOR=1 CLICOLOR_FORCE=1"])
def test_files_hold_no_colour(forced: str, command: str, tmp_path: Path) -> None:
    arguments = " ".join(COMMANDS[command])
    shell(f"env -u NO_COLOR TERM=xterm-256color {forced} unilmctl {arguments} > out 2> err", tmp_path)
    assert not ANSI.search((tmp_path / "out").read_text())
    assert forced or not ANSI.search((tmp_path / "err").read_text())


def test_answers_on_a_terminal_leave_no_progress_behind(model: Path, tmp_path: Path) -> None:
    code, out, err = on_terminal(["generate", "in.txt", "--model", str(model), *GREEDY.split()], tmp_path)
    assert code == 0
    assert out.count("\n") == 2
    assert not ANSI.search(out)
    assert "generate" not in re.sub(r"\x1b\[2K.*", "", err).splitlines()[-1:]


def test_a_slow_producer_is_answered_line_by_line(model: Path, tmp_path: Path) -> None:
    command = f"(for i in 1 2 3; do echo a b; sleep 0.3; done) | unilmctl generate --model {model} {GREEDY} | cat"
    assert shell(command, tmp_path).stdout.count("\n") == 3


def test_a_line_that_arrives_in_pieces_is_one_line(model: Path, tmp_path: Path) -> None:
    command = (
        f"(printf a; sleep 0.2; printf ' b\\nc'; sleep 0.2; printf 'd\\n') | unilmctl generate --model {model} {GREEDY}"
    )
    pieces = shell(command, tmp_path).stdout
    assert pieces == shell(f"printf 'a b\\ncd\\n' | unilmctl generate --model {model} {GREEDY}", tmp_path).stdout
    assert pieces.count("\n") == 2


def test_two_producers_into_one_pipe_are_answered_line_by_line(model: Path, tmp_path: Path) -> None:
    feed = "(yes 'a b' | head -500 & yes 'c d' | head -500; wait)"
    assert shell(f"{feed} | unilmctl generate --model {model} {GREEDY} | wc -l", tmp_path).stdout.strip() == "1000"


@pytest.mark.reliability
def test_a_slow_reader_does_not_fill_the_memory(model: Path, tmp_path: Path) -> None:
    """Nobody reads: the program stops writing, and so stops reading, whatever is sent to it."""
    arguments = ["generate", "--model", str(model), "--search", "greedy", "--max-length", "4", "--json"]
    with subprocess.Popen([*UNILMCTL, *arguments], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(b"a\n")
        one.stdin.flush()
        assert one.stdout.readline()  # it has begun: memory is measured from here on
        os.set_blocking(one.stdin.fileno(), False)
        memory, sent, deadline = [], 0, time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                sent += os.write(one.stdin.fileno(), b"a b c d\n" * 2000)
            except BlockingIOError:
                time.sleep(0.1)
                memory.append(resident(one.pid))
        one.kill()
    assert sent < 16 * 2**20
    assert memory[-1] - memory[len(memory) // 2] < 5 * 2**20


LABELS = Path(__file__).parents[1] / "golden" / "model-0.1-heads"
MILLION = {"empty": (["--search", "greedy", "--max-length", "4"], ""), "all different": (["--task", "kind"], "{}")}
"""Lines -> options of the command, and how the line of a number is written."""


@pytest.mark.reliability
@pytest.mark.parametrize("kind", MILLION)
def test_a_million_lines_take_flat_memory(kind: str, model: Path, tmp_path: Path) -> None:
    options, form = MILLION[kind]
    arguments = ["generate", "--model", str(model if kind == "empty" else LABELS), *options]
    with subprocess.Popen([*UNILMCTL, *arguments], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        memory = []
        for start in range(0, 1_000_000, 5000):
            one.stdin.write("".join(form.format(number) + "\n" for number in range(start, start + 5000)).encode())
            one.stdin.flush()
            assert all(one.stdout.readline() in (b"\n", b"place\n") for _ in range(5000))
            memory.append(resident(one.pid))
        one.stdin.close()
        assert one.wait(60) == 0
    half = len(memory) // 2  # in the first, words are remembered until there are too many
    assert max(memory[half:]) - max(memory[:half]) < 5 * 2**20, memory[::10]
