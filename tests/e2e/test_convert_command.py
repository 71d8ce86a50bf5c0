"""convert and inspect model as a user calls them: a checkpoint in, a folder out that transformers opens too."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import Unilmctl

from unilmctl.files import verify_manifest
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import load_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(40))]


@pytest.fixture
def bert(tmp_path: Path) -> torch.nn.Module:
    """A random BERT of transformers, saved with its vocabulary in the folder `bert`."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=20, **sizes)
    model: torch.nn.Module = transformers.BertForMaskedLM(config).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)  # type: ignore[union-attr, arg-type]
    model.save_pretrained(tmp_path / "bert")  # type: ignore[operator]
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    return model


def test_there_and_back(bert: torch.nn.Module, tmp_path: Path, unilmctl: Unilmctl) -> None:
    done = unilmctl("convert", "bert", "models/bert", "--objective", "causal")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "bert -> models/bert"
    assert any(line.split() == ["head", "trained"] for line in done.stdout.splitlines())
    folder = tmp_path / "models" / "bert"
    assert verify_manifest(folder) == []
    again = type(bert).from_pretrained(folder)  # type: ignore[attr-defined]
    assert bert.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in bert.state_dict().items())
    encoder, card = load_model(folder)
    assert card.objective == "causal"
    ids = torch.arange(2, 14)[None]
    zeros = torch.zeros_like(ids)
    with torch.no_grad():
        hidden, _ = encoder(ids, torch.arange(12)[None], zeros, Slots(zeros, zeros, torch.full_like(ids, FOREVER)))
        torch.testing.assert_close(encoder.logits(hidden), bert(ids).logits, rtol=0, atol=1e-5)


def test_a_model_converted_and_looked_into(bert: torch.nn.Module, unilmctl: Unilmctl) -> None:
    assert unilmctl("convert", "bert", "model", "--positions", 40, "--segments", 6).returncode == 0
    done = unilmctl("inspect", "model", "model", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    shapes = {one["name"]: one["shape"] for one in shown["tensors"]}
    assert shapes["bert.embeddings.position_embeddings.weight"] == [40, 16]
    assert shapes["bert.embeddings.token_type_embeddings.weight"] == [6, 16]
    assert shown["manifest"] == {"problems": []}
    assert (shown["card"]["source_segment"], shown["card"]["target_segment"]) == (4, 5)


def test_a_damaged_model_is_told(bert: torch.nn.Module, tmp_path: Path, unilmctl: Unilmctl) -> None:
    assert unilmctl("convert", "bert", "model").returncode == 0
    path = tmp_path / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    done = unilmctl("inspect", "model", "model")
    assert done.returncode == 5
    assert "its contents have changed (sha256 differs from the manifest)" in done.stderr


class Command:
    """Pickles as a shell command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_hostile_checkpoint_ends_with_exit_code_5(bert: torch.nn.Module, tmp_path: Path, unilmctl: Unilmctl) -> None:
    (tmp_path / "bert" / "model.safetensors").unlink()
    torch.save({"x": Command()}, tmp_path / "bert" / "pytorch_model.bin")
    done = unilmctl("convert", "bert", "model")
    assert (done.returncode, done.stdout) == (5, "")
    assert "the pickle asks for 'posix.system'" in done.stderr
    assert "hint: nothing in the file was executed" in done.stderr
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "model").exists()


def test_a_source_that_is_not_there(unilmctl: Unilmctl) -> None:
    done = unilmctl("convert", "nowhere", "model")
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "error: nowhere: no such file or folder",
        "hint: to fetch from the Hugging Face hub, write hf:NAME",
    ]
