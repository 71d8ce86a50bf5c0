"""Checkpoints that released versions wrote stay readable: the same bits in, the same numbers out.

One folder per release, `model-X.Y`, written by that version and never touched again; `expected.json` beside the folders
holds rows of ids and the logits that this version computed for them (float32). `model-X.Y-heads` is a checkpoint of a
training for two tasks, with the optimiser's state; `heads.json` holds what it said of some texts.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unilmctl.files import verify_manifest
from unilmctl.generation import open_model
from unilmctl.generation.labelling import Labeller
from unilmctl.objectives import DECODING
from unilmctl.runs.checkpoint import load_checkpoint
from unilmctl.tokens import Tokenizer
from unilmctl.training import TrainOptions, build_optimizer, optimizer_tensors
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import load_model, save_model

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())
HEADS = json.loads((HERE / "heads.json").read_text())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_old_checkpoint_computes_what_it_did(name: str) -> None:
    folder, case = HERE / name, EXPECTED[name]
    assert verify_manifest(folder) == []
    encoder, card = load_model(folder)
    assert card.objective in DECODING
    assert Tokenizer.load(folder).encode(case["text"]) == case["ids"]
    ids = torch.tensor([case["ids"]])
    time = torch.arange(ids.shape[1])[None]
    segments = torch.tensor([case["segments"]])
    with torch.no_grad():
        hidden, _ = encoder(ids, time, segments, Slots(torch.zeros_like(ids), time, torch.full_like(ids, FOREVER)))
        logits = encoder.logits(hidden)[0]
    torch.testing.assert_close(logits, torch.tensor(case["logits"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_heads_of_an_old_checkpoint_say_what_they_did(name: str) -> None:
    assert verify_manifest(HERE / name) == []
    opened = open_model(HERE / name)
    assert opened.card.tasks.keys() == HEADS[name]["says"].keys()
    for task, cases in HEADS[name]["says"].items():
        said = Labeller(opened, task, batch_tokens=1000).say([(case["source"], None) for case in cases])
        assert [one.text for one in said] == [case["text"] for case in cases]
        for one, case in zip(said, cases, strict=True):
            assert one.fields == {key: _near(value) for key, value in case["fields"].items()}


def _near(value: object) -> object:
    return pytest.approx(value, abs=1e-5) if isinstance(value, dict) else value


@pytest.mark.parametrize("name", sorted(HEADS))
def test_training_goes_on_from_an_old_checkpoint(name: str) -> None:
    folder, case = HERE / name, HEADS[name]["training"]
    encoder = load_model(folder).encoder
    optimizer = build_optimizer(encoder, TrainOptions(steps=case["position"]["step"] + 1))
    state = load_checkpoint(folder, encoder, optimizer)
    assert state.position._asdict() == case["position"]
    sums = {key: float(tensor.double().abs().sum()) for key, tensor in optimizer_tensors(encoder, optimizer).items()}
    assert sums == pytest.approx(case["moments"], rel=1e-6)


@pytest.mark.parametrize("name", sorted([*EXPECTED, *HEADS]))
def test_an_old_checkpoint_written_again_has_the_same_weights(name: str, tmp_path: Path) -> None:
    encoder, card = load_model(HERE / name)
    save_model(tmp_path, encoder, card, None)
    before, after = load_file(HERE / name / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
