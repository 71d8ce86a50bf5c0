"""`torchrun ... unilmctl finetune`: the same run for any number of processes, sharded or not, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unilmctl.runs import RunFolder
from unilmctl.runs.checkpoint import load_checkpoint
from unilmctl.training import TrainOptions, build_optimizer, optimizer_tensors
from unilmctl.weights import load_model

ROOT = Path(__file__).parents[2]
RECIPE = """
run: alone
seed: 3
data: {train: {files: [train.jsonl]}, valid: {files: [valid.jsonl]}, store: store}
model: {architecture: bert, layers: 2, hidden: 32, heads: 2, feedforward: 64, positions: 40}
tokens: {max_source: 16, max_target: 12, train: {kind: wordpiece, size: 60}}
finetune: {objective: pseudo, batch_tokens: 240, steps: 6, learning_rate: 5e-3, warmup: 2, accumulate: 2,
  precision: float32, log_every: 1, evaluate_every: 3, save_every: 3, threads: 1}
generate: {search: greedy}
"""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")},
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}
pytestmark = pytest.mark.slow
NO_DROPOUT = ("model.dropout=0", "model.attention_dropout=0")
Ended = tuple[int, str]


def start(folder: Path, world: int, *command: str) -> subprocess.Popen[str]:
    """Processes on one machine, in their own rendezvous."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return subprocess.Popen(
        [*(launch if world else [sys.executable]), *command],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )


def tune(folder: Path, world: int, run: str, *settings: str) -> subprocess.Popen[str]:
    """`finetune` by so many processes; 0: without torchrun."""
    sets = [part for setting in (f"run={run}", *settings) for part in ("--set", setting)]
    return start(folder, world, "-m", "unilmctl", "finetune", "recipe.yaml", *sets)


def end(process: subprocess.Popen[str]) -> Ended:
    shown = process.communicate(timeout=120)[1]
    return process.returncode, shown


def entries(folder: Path, run: str, event: str) -> list[dict[str, Any]]:
    return [entry for entry in RunFolder(folder / run).read_log() if entry["event"] == event]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a recipe, a token store, and runs of one process, with dropout and without."""
    folder = tmp_path_factory.mktemp("many")
    words = ["red", "green", "blue", "one", "two", "three", "four", "old", "new", "big", "small", "cat", "dog", "bird"]
    lines = []
    for index in range(32):
        drawn = [words[(index * 7 + place * 5 + index * place) % len(words)] for place in range(3 + index % 2)]
        lines.append(json.dumps({"src": " ".join(drawn), "tgt": " ".join(["the", *reversed(drawn)])}) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "valid.jsonl").write_text("".join(lines[:4]))
    (folder / "recipe.yaml").write_text(RECIPE)
    for run, settings in {"alone": (), "plain": NO_DROPOUT}.items():
        code, shown = end(tune(folder, 0, run, *settings))
        assert code == 0, shown
    return folder


@pytest.fixture(scope="module")
def sharded(place: Path) -> Path:
    """A run of two processes that share the model out; its folder."""
    code, shown = end(tune(place, 2, "sharded", "finetune.sharding=full"))
    assert code == 0, shown
    return place / "sharded"


def assert_same_curve(folder: Path, run: str, reference: str) -> None:
    left, right = entries(folder, run, "steps"), entries(folder, reference, "steps")
    assert [entry["step"] for entry in left] == [1, 2, 3, 4, 5, 6]
    for found, expected in zip(left, right, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5)
        assert (found["epoch"], found["learning_rate"]) == (expected["epoch"], expected["learning_rate"])
    scores = [[entry["loss"] for entry in entries(folder, name, "evaluation")] for name in (run, reference)]
    assert len(scores[0]) == 2
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_two_processes_train_as_one_does_with_dropout_too(place: Path) -> None:
    code, shown = end(tune(place, 2, "two"))
    assert code == 0, shown
    assert_same_curve(place, "two", "alone")
    assert shown.count("6 steps done in two") == 1  # only the first process speaks
    assert RunFolder(place / "two").newest()[1] == []


def test_four_processes_cut_batches_and_train_as_one_does_without_dropout(place: Path) -> None:
    code, shown = end(tune(place, 4, "four", *NO_DROPOUT))
    assert code == 0, shown
    assert_same_curve(place, "four", "plain")


def test_a_model_that_is_shared_out_trains_as_a_whole_one(place: Path, sharded: Path) -> None:
    assert_same_curve(place, sharded.name, "alone")
    found, expected = (load_model(place / run / "checkpoints/step-6").encoder for run in (sharded.name, "alone"))
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def moments(checkpoint: Path) -> dict[str, torch.Tensor]:
    encoder = load_model(checkpoint).encoder
    optimizer = build_optimizer(encoder, TrainOptions(steps=1))
    load_checkpoint(checkpoint, encoder, optimizer)
    return optimizer_tensors(encoder, optimizer)


def test_a_sharded_checkpoint_is_the_same_for_one_process_and_for_four(sharded: Path, tmp_path: Path) -> None:
    old, new = sharded / "checkpoints" / "step-6", tmp_path / "again"
    new.mkdir()
    code, shown = end(start(tmp_path, 4, str(Path(__file__).with_name("resave.py")), str(old), str(new)))
    assert code == 0, shown
    assert (len(list((old / "training").iterdir())), len(list((new / "training").iterdir()))) == (2, 4)
    assert (old / "model.safetensors").read_bytes() == (new / "model.safetensors").read_bytes()
    assert (old / "state.json").read_bytes() == (new / "state.json").read_bytes()
    left, right = moments(old), moments(new)
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    pieces = [load_file(path)["exp_avg.embeddings.word.weight"] for path in sorted((old / "training").iterdir())]
    assert torch.equal(torch.cat(pieces), left["exp_avg.embeddings.word.weight"])


def test_a_run_goes_on_with_another_number_of_processes(place: Path, sharded: Path) -> None:
    """The last three steps of two processes are taken back and done again by one that has the whole model."""
    broken = sharded / "checkpoints" / "step-6" / "state.json"
    kept = broken.read_bytes()
    broken.write_bytes(b"{}")
    code, shown = end(tune(place, 0, sharded.name))
    assert code == 0, shown
    assert "going on from step 3" in shown
    assert_same_curve(place, sharded.name, "alone")
    assert json.loads(kept)["position"] == json.loads(broken.read_bytes())["position"]


def ranks(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> process id of what torchrun has started."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        for entry in Path(f"/proc/{child}/environ").read_text().split("\0"):
            if entry.startswith("RANK="):
                found[int(entry.removeprefix("RANK="))] = int(child)
    return found


def running(place: Path, run: str) -> subprocess.Popen[str]:
    """A long run of two processes that has saved something."""
    process = tune(place, 2, run, "finetune.steps=100000", "data.valid=null")
    deadline = time.monotonic() + 90
    while not (place / run / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")


@needs_proc
@pytest.mark.parametrize("told", ["one", "all"])
def test_sigterm_saves_once_and_everyone_exits_75(told: str, place: Path) -> None:
    process = running(place, f"stopped-{told}")
    for number in [ranks(process)[1]] if told == "one" else ranks(process).values():
        os.kill(number, signal.SIGTERM)
    _, shown = end(process)
    assert shown.count("all is saved in") == 1, shown
    assert shown.count("exitcode  : 75") == 2, shown
    assert "step-" in (place / f"stopped-{told}" / "latest").read_text()
    assert RunFolder(place / f"stopped-{told}").newest()[1] == []


@needs_proc
def test_a_process_that_is_killed_ends_the_others(place: Path) -> None:
    process = running(place, "killed")
    began = time.monotonic()
    os.kill(ranks(process)[1], signal.SIGKILL)
    code, shown = end(process)
    assert code != 0
    assert time.monotonic() - began < 25
    assert shown.count("error: ") == 1, shown
    assert "error: another process of this run has ended without a word" in shown


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_process_is_the_end_of_all(failing: int, tmp_path: Path) -> None:
    code, shown = end(start(tmp_path, 3, str(Path(__file__).with_name("failing.py")), str(failing)))
    assert code == 0, shown
    told = sorted(line for line in shown.splitlines() if line.startswith("rank "))
    assert told == [f"rank {rank}: 4 {'a line is wrong' if rank == failing else ''!r}" for rank in range(3)]


def test_a_mistake_in_the_data_is_told_once(place: Path) -> None:
    code, shown = end(tune(place, 2, "mistaken", "data.train.files=[nowhere.jsonl]"))
    assert code != 0
    assert shown.count("error: nowhere.jsonl: no such file") == 1, shown
    assert "exitcode  : 4" in shown
