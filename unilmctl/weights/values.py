"""Values of a config.json, typed and bounded before anything is allocated by them."""

from collections.abc import Mapping
from typing import Any

from unilmctl.errors import ModelError

BOUNDS = {
    "vocab_size": (1, 4_000_000),
    "hidden_size": (1, 65_536),
    "num_hidden_layers": (1, 1_000),
    "num_attention_heads": (1, 1_024),
    "intermediate_size": (1, 1_000_000),
    "max_position_embeddings": (1, 4_000_000),
    "type_vocab_size": (0, 1_000),
    "embedding_size": (1, 65_536),
    "rel_pos_bins": (0, 4_096),
    "max_rel_pos": (0, 1_000_000),
    "num_hidden_groups": (1, 1_000),
    "inner_group_num": (1, 1_000),
    "relative_attention_num_buckets": (0, 4_096),
    "task_type_vocab_size": (1, 1_000),
    "max_relative_position": (1, 4_096),
    "local_attention": (0, 8_000_000),
    "global_attn_every_n_layers": (1, 1_000),
    "pad_token_id": (0, 4_000_000),
    "unilmctl_inner_positions": (0, 4_000_000),
}


NUMBERS = {"global_rope_theta": (1.0, 1e12), "local_rope_theta": (1.0, 1e12)}

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
}


class Values:
    """The values by their keys. A key that is absent, or null, means what `defaults` or the caller says."""

    def __init__(self, raw: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> None:
        """`where` names the file in errors; `defaults` are a family's."""
        self.raw = {**defaults, **{name: value for name, value in raw.items() if value is not None}}
        self.where = where

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number within its bounds; ModelError for anything else, and when there is no default."""
        value = self.raw.get(name, default)
        if value is None:
            raise ModelError(f"{self.where}: '{name}' is missing")
        low, high = BOUNDS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be a whole number from {low} to {high}")
        return value

    def fraction(self, name: str, default: float) -> float:
        """A number from 0 to 1; ModelError for anything else."""
        value = self.raw.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be a number from 0 to 1")
        return float(value)

    def number(self, name: str, default: float) -> float:
        """A number within its bounds; ModelError for anything else."""
        value = self.raw.get(name, default)
        low, high = NUMBERS[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false; ModelError for anything else."""
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: '{name}' is {value!r}; it must be true or false")
        return value

    def activation(self, name: str, default: str) -> str:
        """The activation that is meant; ModelError for one that is not supported."""
        value = self.raw.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            hint = f"supported: {', '.join(ACTIVATIONS)}"
            raise ModelError(f"{self.where}: activation {value!r} is not supported", hint)
        return ACTIVATIONS[value]
