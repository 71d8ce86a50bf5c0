"""Checkpoints that released versions wrote stay readable: the same bits in, the same numbers out.

One folder per release, `model-X.Y`, written by that version and never touched again; `expected.json` beside the folders
holds rows of ids and the logits that this version computed for them (float32).
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unilmctl.files import verify_manifest
from unilmctl.objectives import DECODING
from unilmctl.tokens import Tokenizer
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import load_model, save_model

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())


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


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_old_checkpoint_written_again_has_the_same_weights(name: str, tmp_path: Path) -> None:
    encoder, card = load_model(HERE / name)
    save_model(tmp_path, encoder, card, None)
    before, after = load_file(HERE / name / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
