"""`unilmctl generate` and `score` as processes: pipes, order, latency, memory, workers and shards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_writer import model_folder

from unilmctl.commands.generate import opened_decoder
from unilmctl.generation import GenerateOptions, Staff, Work
from unilmctl.search import Task

Unilmctl = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "unilmctl", "generate"]
RELEASED = Path(__file__).parents[1] / "golden" / "model-0.1"
WORDS = ["", *(word for word in (RELEASED / "vocab.txt").read_text().split() if word.isalpha())]
LINES = "".join(f"{WORDS[n % len(WORDS)]} {WORDS[n // 3 % len(WORDS)]}\n" for n in range(101))
SAMPLING = ("--search", "sample", "--nbest", 2, "--temperature", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def test_lines_in_lines_out(unilmctl: Unilmctl, model: Path) -> None:
    done = unilmctl("generate", "--model", model, "--beam", 5, stdin="a\nb\n")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 2
    assert done.stderr == ""


def test_score_of_what_was_generated(unilmctl: Unilmctl, model: Path) -> None:
    done = unilmctl("generate", "--model", model, "--json", "--length-penalty", 0, stdin='{"src": "a b"}\n')
    best = json.loads(done.stdout)["hypotheses"][0]
    line = json.dumps({"src": "a b", "tgt": best["tokens"]}) + "\n"
    scored = unilmctl("score", "--model", model, stdin=line)
    assert float(scored.stdout) == pytest.approx(best["score"], abs=1e-5)


def test_a_line_is_answered_before_the_end_of_input(model: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "--model", str(model), "--min-length", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"a b\n", b"c\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().strip()
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(30) == 0


def test_a_reader_that_leaves_is_no_error_message(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a b c\n" * 20_000)
    shell = (
        f"{' '.join(COMMAND)} in.txt --model {model} --search greedy --min-length 3 | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[1] == "141"
    assert done.stderr == ""


def test_memory_holds_over_many_lines(model: Path, tmp_path: Path) -> None:
    lines = 20_000
    command = [*COMMAND, "--model", str(model), "--search", "greedy", "--max-length", "3", "--batch-tokens", "4096"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        memory = []
        for _ in range(10):
            process.stdin.write(b"a b\n" * (lines // 10))
            process.stdin.flush()
            for _ in range(lines // 10):
                assert process.stdout.readline()
            memory.append(resident(process.pid))
        process.stdin.close()
        assert process.wait(30) == 0
    assert memory[-1] - memory[2] < 8 * 2**20


def resident(process: int) -> int:
    """Bytes of memory a process holds now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_errors_have_their_exit_codes(unilmctl: Unilmctl, model: Path, tmp_path: Path) -> None:
    assert unilmctl("generate", "--model", tmp_path / "none", stdin="a\n").returncode == 5
    done = unilmctl("generate", "--model", model, stdin='{"src": "a"}\n{"x": 1}\n')
    assert done.returncode == 4
    assert done.stdout.count("\n") == 1
    assert "<stdin>:2: 'src' is missing" in done.stderr
    full = unilmctl("generate", "--model", model, "--output", "/dev/full", stdin="a\n")
    assert full.returncode == 74


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one process writes for `LINES`."""
    command = [*COMMAND, "--model", str(RELEASED), "--workers", "1", *map(str, SAMPLING)]
    folder = tmp_path_factory.mktemp("whole")
    done = subprocess.run(command, input=LINES, capture_output=True, text=True, cwd=folder, timeout=120, check=True)
    assert done.stdout.count("\n") == 202
    assert len(set(done.stdout.splitlines())) > 20
    return done.stdout


def test_two_workers_write_what_one_process_writes(unilmctl: Unilmctl, whole: str) -> None:
    done = unilmctl("generate", "--model", RELEASED, "--workers", 2, *SAMPLING, stdin=LINES)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == whole


def test_workers_that_are_not_forked_open_the_model_themselves() -> None:
    options = GenerateOptions(beam=2, max_length=3)
    here = opened_decoder([RELEASED], None, options)
    work = [Work(Task(key), [5 + key % 3]) for key in range(8)]
    expected = dict(one for found in here(work) for one in found)
    with Staff(here, partial(opened_decoder, [RELEASED], None, options), workers=2, fork=False) as staff:
        staff.submit(work)
        found: dict[int, object] = {}
        while len(found) < len(work):
            found.update(staff.collect())
    ids = [{key: [h.ids for h in hs] for key, hs in side.items()} for side in (found, expected)]  # type: ignore[attr-defined]
    assert ids[0] == ids[1]


def test_shards_one_after_another_merge_into_one_file(unilmctl: Unilmctl, whole: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(LINES)
    for number in (2, 3, 1):
        done = unilmctl(
            "generate",
            "in",
            "--model",
            RELEASED,
            "--shard",
            f"{number}/3",
            "--output",
            "out",
            *SAMPLING,
            "--workers",
            1,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "unilmctl", "generate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)


def test_torchrun_splits_the_input_and_merges_the_output(whole: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(LINES)
    done = torchrun(tmp_path, "in", "--model", RELEASED, "--output", "out", *SAMPLING)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_torchrun_says_what_cannot_be_shared(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(LINES)
    done = torchrun(tmp_path, "in", "--model", RELEASED)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "error: several processes cannot share standard output" in done.stderr
    assert "hint: --output FILE under torchrun" in done.stderr


@contextmanager
def two_workers(model: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A command that has answered two lines and waits for more, and its workers."""
    command = [*COMMAND, "--model", str(model), "--workers", "2", "--min-length", "2"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(b"a b\nc\n")
        process.stdin.flush()
        assert process.stdout.readline().strip()
        assert process.stdout.readline().strip()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        yield process, [int(child) for child in children]


def gone(processes: list[int]) -> bool:
    """Whether processes end within seconds."""
    for _ in range(200):
        if not any(Path(f"/proc/{process}").exists() for process in processes):
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_ends_the_command_by_its_name(model: Path, tmp_path: Path) -> None:
    with two_workers(model, tmp_path) as (process, workers):
        os.kill(workers[1], signal.SIGKILL)
        _, errors = process.communicate(b"a\nb\n", timeout=30)
        assert process.returncode == 7
        assert f"error: worker 2 (process {workers[1]}) was killed" in errors.decode()
        assert "Traceback" not in errors.decode()
        assert gone(workers)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_no_signal_leaves_a_worker_behind(model: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    with two_workers(model, tmp_path) as (process, workers):
        process.send_signal(number)
        assert process.wait(30) == code
        assert gone(workers)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_the_workers(model: Path, tmp_path: Path) -> None:
    with two_workers(model, tmp_path) as (process, workers):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.wait(30) == 141
        assert gone(workers)
        assert process.stderr.read() == b""


def test_wishes_of_the_wrong_kind_name_their_line(unilmctl: Unilmctl, model: Path) -> None:
    lines = '{"src": "a", "prefix": "c d"}\n{"src": "a", "prefix": 3}\n'
    done = unilmctl("generate", "--model", model, stdin=lines)
    assert done.returncode == 4
    assert "<stdin>:2: 'prefix' must be text or a list of tokens, not a number" in done.stderr
    assert done.stdout.startswith("c d")
