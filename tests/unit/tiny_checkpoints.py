"""Tiny random checkpoints for the tests of the weights room."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilmctl.model import Encoder, ModelConfig
from unilmctl.weights.configuration import hugging_face_config
from unilmctl.weights.names import rules, to_disk

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij"), "ab", "cd"]


def tiny(**changes: Any) -> Encoder:
    """A random encoder of two layers over `WORDS`; every tensor differs from its initial value."""
    sizes = {"hidden": 8, "layers": 2, "heads": 2, "feedforward": 12, "positions": 10, "pooler": True}
    encoder = Encoder(ModelConfig(**{"vocabulary": len(WORDS), **sizes, **changes}))
    generator = torch.Generator().manual_seed(11)
    for tensor in encoder.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return encoder.eval()


def on_disk(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors under the family's names, each in storage of its own."""
    return {name: tensor.clone() for name, tensor in to_disk(rules(encoder.config), encoder.state_dict()).items()}


def write_config(folder: Path, config: ModelConfig, **changes: Any) -> Path:
    """config.json, with `changes` (None removes a key)."""
    values = {**hugging_face_config(config), **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return path


def write_vocabulary(folder: Path) -> None:
    """vocab.txt of `WORDS`."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def same(left: Encoder, right: Encoder) -> bool:
    """Whether two encoders hold the same bits under the same names."""
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
