"""A tiny random model that writes: vocabulary, tokenizer, weights, in memory or as a model folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unilmctl.generation import GenerateOptions, Generator
from unilmctl.model import Encoder, ModelConfig
from unilmctl.rows import Frame
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ModelCard, save_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop", *(f"##{c}" for c in "abcd"), ".", ","]
FRAME = Frame(pad=0, start=2, separator=3, mask=4, vocabulary=len(WORDS), max_source=24, max_target=16)


def tiny_encoder(seed: int = 3, **changes: Any) -> Encoder:
    """Two layers over `WORDS`, with weights large enough for outputs to depend on sources."""
    sizes = {"hidden": 16, "layers": 2, "heads": 4, "feedforward": 24, "positions": 48}
    encoder = Encoder(ModelConfig(**{"vocabulary": len(WORDS), **sizes, **changes}))
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in encoder.state_dict().items():
        scale = 0.1 if name.endswith("bias") else 0.35
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale + ("norm.weight" in name))
    return encoder.eval()


def tiny_tokenizer(folder: Path) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return Tokenizer.load(folder)


def tiny_generator(folder: Path, *, objective: str = "pseudo", seed: int = 3, **options: Any) -> Generator:
    card = ModelCard(objective=objective)
    settled = replace(GenerateOptions(max_length=10, beam=3), **options)
    return Generator(tiny_encoder(seed), card, tiny_tokenizer(folder), settled)


def model_folder(folder: Path, **card: Any) -> Path:
    """The tiny model as a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(
        folder, tiny_encoder(), ModelCard(**{"max_source": 24, "max_target": 10, **card}), tiny_tokenizer(folder)
    )
    return folder


def sentences(count: int, *, seed: int = 0, longest: int = 14) -> list[list[int]]:
    """Random sources of 1 to `longest` tokens."""
    random = np.random.default_rng(seed)
    return [random.integers(5, len(WORDS), random.integers(1, longest + 1)).tolist() for _ in range(count)]
