"""Heads beside the language model's in config.json, where transformers looks past them."""

from collections.abc import Mapping
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.model import HeadConfig, ModelConfig

HEADS = "unilmctl_heads"

INNER = "unilmctl_inner_positions"

MOST = 1000
"""Heads, and classes of one times this, that a config.json may ask for."""


def read_heads(raw: Mapping[str, Any], where: str) -> tuple[HeadConfig, ...]:
    """The heads that a config.json lists; ModelError for anything that is no such list."""
    listed = raw.get(HEADS, [])
    if not isinstance(listed, list) or len(listed) > MOST:
        raise ModelError(f"{where}: '{HEADS}' is not a list of heads")
    return tuple(_read_head(entry, where) for entry in listed)


def _read_head(entry: object, where: str) -> HeadConfig:
    if isinstance(entry, dict) and entry.keys() == {"name", "kind", "classes", "labels"}:
        name, kind, classes, labels = (entry[key] for key in ("name", "kind", "classes", "labels"))
        texts = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        number = isinstance(classes, int) and not isinstance(classes, bool) and 1 <= classes <= MOST**2
        if texts and number and isinstance(name, str) and isinstance(kind, str):
            return HeadConfig(name, kind, classes, tuple(labels))  # type: ignore[arg-type]  # it looks itself
    raise ModelError(f"{where}: '{HEADS}' has an entry that describes no head: {str(entry)[:200]}")


def written_heads(config: ModelConfig) -> dict[str, Any]:
    """What config.json says beyond what transformers knows; nothing for a plain model."""
    found: dict[str, Any] = {}
    if config.heads_extra:
        found[HEADS] = [
            {"name": head.name, "kind": head.kind, "classes": head.classes, "labels": list(head.labels)}
            for head in config.heads_extra
        ]
    return found | ({INNER: config.inner_positions} if config.inner_positions else {})
