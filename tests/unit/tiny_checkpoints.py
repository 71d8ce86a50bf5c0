"""Tiny random checkpoints for the tests of the weights room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.model import Encoder, ModelConfig
from unilmctl.weights.configuration import hugging_face_config
from unilmctl.weights.names import rules, to_disk

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij"), "ab", "cd"]

SWITCHES: dict[str, dict[str, Any]] = {
    "mpnet": {"segments": 0},
    "nezha": {"position": "relative", "relative_distance": 3},
    "roformer": {"position": "interleaved"},
    "modernbert": {
        **{"position": "rotary", "rotary_base": 160.0, "global_every": 2, "window": 3, "segments": 0},
        **{"prenorm": True, "gated": True, "linear_bias": False, "norm_bias": False},
    },
}
"""What some families always are."""


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


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> None:
    """A folder as of somebody else, with these tensors (None: without weights)."""
    write_config(folder, tiny().config, **config)
    write_vocabulary(folder)
    if tensors is not None:
        (folder / "model.safetensors").write_bytes(save(tensors))


def refused(read: Callable[[Path], Any], path: Path) -> str:
    """The message with which `read` refuses the file; it names the file, and the exit code is 5."""
    with pytest.raises(ModelError) as caught:
        read(path)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)
    return str(caught.value)
