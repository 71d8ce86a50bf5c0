"""Nothing forgets where the model is: training and decoding away from the processor (see `far_device`)."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_writer
import torch
from conftest import Unilmctl

from unilmctl.errors import UsageError
from unilmctl.generation import GenerateOptions
from unilmctl.model.devices import device_named
from unilmctl.training.distributed import ALONE, Processes


def test_elsewhere() -> None:
    """In a fresh process: a backward pass on such a device starts threads, after which none can be forked."""
    file = Path(__file__).with_name("elsewhere.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "number", "gpus", "expected"),
    [
        ("auto", 0, 0, "cpu"),
        ("cpu", 0, 2, "cpu"),
        ("auto", 0, 2, "cuda:0"),
        ("auto", 3, 2, "cuda:1"),
        ("cuda", 1, 2, "cuda:1"),
        ("cuda:1", 0, 2, "cuda:1"),
    ],
)
def test_names_of_devices(name: str, number: int, gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert device_named(name, number=number) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "gpus", "hint"),
    [
        ("cuda", 0, "there is no GPU: `cpu`, or `auto`"),
        ("cuda:0", 0, "there is no GPU: `cpu`, or `auto`"),
        ("cuda:2", 2, "there are cuda:0 to cuda:1"),
    ],
)
def test_a_device_that_is_not_there(name: str, gpus: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UsageError) as caught:
        device_named(name)
    assert (caught.value.message, caught.value.hint) == (f"{name}: no such device here", hint)
    assert caught.value.exit_code == 2


def test_one_device_is_not_for_several_processes() -> None:
    assert ALONE.on("cpu").device == torch.device("cpu")
    with pytest.raises(UsageError, match="^cuda:1 is one device, and 2 processes share the run$"):
        Processes(rank=1, size=2).on("cuda:1")


def test_a_device_is_named_as_people_do() -> None:
    with pytest.raises(UsageError) as caught:
        GenerateOptions(device="gpu")
    assert (caught.value.message, caught.value.hint) == ("device cannot be 'gpu'", "auto, cpu, cuda or cuda:N")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_commands_say_that_there_is_no_gpu(tmp_path: Path, unilmctl: Unilmctl) -> None:
    model = tiny_writer.model_folder(tmp_path / "model")
    for command in ("generate", "score"):
        ended = unilmctl(command, "--model", model, "--device", "cuda:1", stdin='{"src": "a", "tgt": "b"}\n')
        assert ended.returncode == 2
        assert "cuda:1: no such device here" in ended.stderr
        assert "there is no GPU: `cpu`, or `auto`" in ended.stderr
        assert ended.stdout == ""
