"""`unilmctl generate` and `score` as processes: pipes, order, latency, memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_writer import model_folder

Unilmctl = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "unilmctl", "generate"]


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
