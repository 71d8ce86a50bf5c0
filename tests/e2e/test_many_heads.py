"""Several heads, one of them the contrastive one, trained by two processes as by one; shared out too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_many_processes import end, start

SCRIPT = str(Path(__file__).with_name("several_heads.py"))
pytestmark = pytest.mark.slow
NO_GRADIENT = "extra.answer.dense.bias"
"""A softmax does not see it: its gradient is rounding, which the optimiser makes a step of."""


def test_two_processes_train_several_heads_as_one_does(tmp_path: Path) -> None:
    runs = {"one": (0, ()), "two": (2, ()), "shared": (2, ("sharded",))}
    started = [start(tmp_path, world, SCRIPT, f"{name}.safetensors", *more) for name, (world, more) in runs.items()]
    for process in started:
        code, shown = end(process)
        assert code == 0, shown
    expected = load_file(tmp_path / "one.safetensors")
    for name in ("two", "shared"):
        found = load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        for key in expected.keys() - {NO_GRADIENT}:
            torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=1e-5)
        ours, theirs = (json.loads((tmp_path / f"{one}.json").read_text()) for one in (name, "one"))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine[0] == pytest.approx(other[0], abs=1e-5)
            assert mine[1:] == other[1:]
