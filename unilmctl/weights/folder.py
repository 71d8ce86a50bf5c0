"""Model folders: Hugging Face folders that also say how to use the model.

config.json, model.safetensors     as transformers reads them
vocab.txt / tokenizer.json / ...   the tokenizer's own files
unilmctl.json                      the model card: objective, segments, lengths, decoding defaults
generator/                         a model folder: ELECTRA's generator, while it is needed
MANIFEST.json                      size and sha256 of every file; written by whoever publishes the folder
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save_file

from unilmctl.errors import ModelError, WriteError
from unilmctl.files import write_atomically, write_errors
from unilmctl.model import Encoder, ModelConfig
from unilmctl.tokens import Tokenizer
from unilmctl.weights.adapting import generator_of, with_generator
from unilmctl.weights.assembling import Assembly, assemble
from unilmctl.weights.card import ModelCard, read_card
from unilmctl.weights.configuration import family_name, hugging_face_config, model_config
from unilmctl.weights.names import constants, rules, to_disk
from unilmctl.weights.reading import read_json, read_safetensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GENERATOR = "generator"


class Loaded(NamedTuple):
    """An encoder, in evaluation mode, and how it is meant to be used."""

    encoder: Encoder
    card: ModelCard


def load_model(folder: Path) -> Loaded:
    """The model in a folder with config.json and model.safetensors.

    A plain Hugging Face folder has no unilmctl.json: its objective is then taken to be `pseudo`, its segments are
    config.json's `source_type_id` and `target_type_id` where it has them. Weights become float32. Raises ModelError
    with the reason for anything that is missing, broken or does not fit.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: '{name}' is missing", "make a model folder of it: unilmctl convert")
    raw = read_json(folder / CONFIG)
    assembly = assemble(read_safetensors(folder / WEIGHTS), raw, str(folder))
    card = read_card(folder) or default_card(raw, assembly)
    check_segments(card, assembly.encoder.config, str(folder))
    return Loaded(assembly.encoder, card)


def read_config(folder: Path) -> ModelConfig:
    """The encoder that a model folder's config.json describes; its weights are not looked at.

    ModelError when it describes none that is supported.
    """
    raw = read_json(folder / CONFIG)
    return model_config(raw, family_name(raw, {}, str(folder)), str(folder))


def save_model(folder: Path, encoder: Encoder, card: ModelCard, tokenizer: Tokenizer | None) -> None:
    """Write an encoder, its card and its tokenizer into `folder`, which the caller then publishes.

    Raises WriteError when the system refuses.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    config = hugging_face_config(encoder.config)
    config |= {"source_type_id": card.source_segment, "target_type_id": card.target_segment}
    if tokenizer is not None:
        config |= {"bos_token_id": tokenizer.roles.start, "eos_token_id": tokenizer.roles.separator}
        tokenizer.save(folder)
    with write_atomically(folder / CONFIG) as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())
    save_weights(folder / WEIGHTS, encoder)
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors makes it readable to its owner alone
    card.write(folder)
    generator = generator_of(encoder)
    if generator is not None:
        save_model(folder / GENERATOR, generator, replace(card, head_trained=True), tokenizer)


def load_generator(folder: Path, encoder: Encoder) -> Encoder:
    """The encoder of a folder with the generator that was saved beside it: ELECTRA's training goes on with both."""
    return with_generator(encoder, load_model(folder / GENERATOR).encoder)


def load_whole(folder: Path) -> Loaded:
    """The model of a folder as it was trained: with the generator, where one was saved beside it."""
    loaded = load_model(folder)
    return loaded._replace(encoder=load_generator(folder, loaded.encoder)) if (folder / GENERATOR).is_dir() else loaded


def save_weights(path: Path, encoder: Encoder) -> None:
    """Write the encoder's tensors under the family's names."""
    state = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    tensors = constants(encoder.config)
    tensors |= {name: t.contiguous() for name, t in to_disk(rules(encoder.config), state).items()}
    with write_errors(path):
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise WriteError(f"cannot write {path}: {error}") from error


def default_card(raw: Mapping[str, Any], assembly: Assembly) -> ModelCard:
    """The card of a checkpoint that has none."""
    source, target = default_segments(assembly.encoder.config.segments)
    return ModelCard(
        source_segment=_segment(raw, "source_type_id", source),
        target_segment=_segment(raw, "target_type_id", target),
        head_trained=assembly.head == "trained",
    )


def default_segments(segments: int) -> tuple[int, int]:
    """Source and target segment for a table of this size: UniLM 1's six segments keep 4 and 5 for this purpose."""
    if segments >= 6:
        return 4, 5
    return (0, 1) if segments >= 2 else (0, 0)


def _segment(raw: Mapping[str, Any], name: str, default: int) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def check_segments(card: ModelCard, config: ModelConfig, where: str) -> None:
    """Refuse segment ids that the segment table does not have."""
    rows = max(config.segments, 1)
    for name, segment in (("source", card.source_segment), ("target", card.target_segment)):
        if not 0 <= segment < rows:
            raise ModelError(
                f"{where}: the {name} segment is {segment}, but the model has {config.segments} segments",
                "choose another with --source-segment/--target-segment, or convert with --segments",
            )
