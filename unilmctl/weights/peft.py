"""Adapters as peft reads them: adapter_config.json and adapter_model.safetensors, beside the model that they adapt.

They lie in a folder of their own: where adapter_config.json is, transformers looks for no whole model.
"""

import json
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unilmctl.errors import WriteError
from unilmctl.files import write_atomically, write_errors
from unilmctl.model import ModelConfig
from unilmctl.model.adapters import PARTS, TARGETS, Adapting, split
from unilmctl.weights.families import family_of

FOLDER = "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(folder: Path, config: ModelConfig, how: Adapting, state: dict[str, Tensor]) -> None:
    """Writes the adapters of an adapted encoder's `state` into `folder`/adapter.

    Raises WriteError when the system refuses.
    """
    place = folder / FOLDER
    with write_errors(place):
        place.mkdir(parents=True, exist_ok=True)
    with write_atomically(place / CONFIG) as file:
        file.write((json.dumps(adapter_config(config, how), indent=2) + "\n").encode())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_tensors(config, how, state).items()}
    with write_errors(place / WEIGHTS):
        try:
            save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise WriteError(f"cannot write {place / WEIGHTS}: {error}") from error
    (place / WEIGHTS).chmod((place / CONFIG).stat().st_mode)


def adapter_tensors(config: ModelConfig, how: Adapting, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapters under peft's names: `lora_A` [r, I] and `lora_B` [O, r] of every linear layer of the family."""
    family = family_of(config.family)
    found: dict[str, Tensor] = {}
    for number in range(config.distinct_layers):
        layer = f"base_model.model.{family.named(family.layer.format(number))}"
        for target in how.targets:
            module = TARGETS[target]
            for name, (down, up) in split(f"layers.{number}.{module}", state, family.modules[module]).items():
                found[f"{layer}.{name}.lora_A.weight"] = down
                found[f"{layer}.{name}.lora_B.weight"] = up
    return found


def adapter_config(config: ModelConfig, how: Adapting) -> dict[str, object]:
    """adapter_config.json. Its target modules are a pattern: the name of one may be the end of another's."""
    family = family_of(config.family)
    layer = r"\d+".join(re.escape(part) for part in family.layer.split("{}"))
    modules = {target: family.modules[TARGETS[target]] for target in how.targets}
    names = [re.escape(name) for outside in modules.values() for name in outside]
    whole = {modules[target][0]: parts for target, parts in PARTS.items() if len(modules.get(target, ())) == 1}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": how.base,
        "inference_mode": True,
        "r": how.rank,
        "lora_alpha": how.alpha,
        "rank_pattern": {name: parts * how.rank for name, parts in whole.items()},  # the adapters of all parts
        "alpha_pattern": {name: parts * how.alpha for name, parts in whole.items()},
        "lora_dropout": how.dropout,
        "target_modules": rf".*\.{layer}\.({'|'.join(names)})",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
