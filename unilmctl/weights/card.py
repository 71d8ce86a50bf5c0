"""unilmctl.json: what a model folder says beyond its architecture."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from unilmctl import __version__
from unilmctl.errors import ModelError
from unilmctl.files import write_atomically
from unilmctl.weights.reading import read_json

CARD = "unilmctl.json"


class LabelTask(TypedDict):
    """A task that a model was trained for: `task` says which kind, `source` and `second` the fields that are read.

    `stride`: tokens between windows of a long text, None where texts are read as one. `empty`: whether "" is an answer.
    """

    task: str
    source: str
    second: str | None
    stride: int | None
    empty: bool


@dataclass(frozen=True)
class ModelCard:
    """How a model is meant to be used.

    `objective`: the rows it was trained on, which decide how it decodes. Segment ids of source and target tokens.
    `max_source` and `max_target`: lengths it was trained with, special tokens counted; None when unknown. `truncate`:
    the end of a long source that was cut off, "tail" or "head". `separator_in`: where a causal model has the [SEP]
    between source and target, "target" or "source" (see `rows.Frame`).
    `tasks`: what it was trained for, by name; none for a model that only writes.
    `head_trained`: False while the language-model head has never been trained. `generate`: decoding defaults by option
    name. `fills`: the objectives by which it fills gaps, the best first, with their segment ids of source and target;
    none for a model that was taught none, None for one of which nobody knows. `version`: of the library that wrote it.
    """

    objective: str = "pseudo"
    source_segment: int = 0
    target_segment: int = 1
    max_source: int | None = None
    max_target: int | None = None
    truncate: Literal["tail", "head"] = "tail"
    separator_in: Literal["source", "target"] = "target"
    head_trained: bool = True
    generate: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, LabelTask] = field(default_factory=dict)
    fills: dict[str, list[int]] | None = None
    version: str = __version__

    @property
    def writes(self) -> bool:
        """Whether it was trained to write, as far as the card knows."""
        return not self.tasks or any(known["task"] in ("generate", "similar") for known in self.tasks.values())

    def write(self, folder: Path) -> None:
        """Write unilmctl.json into `folder`."""
        with write_atomically(folder / CARD) as file:
            file.write((json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode())


def read_card(folder: Path) -> ModelCard | None:
    """The card of a model folder, None where there is no unilmctl.json; ModelError when it is broken."""
    path = folder / CARD
    if not path.exists():
        return None
    raw = read_json(path)
    known = asdict(ModelCard())
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise ModelError(f"{path}: unknown key '{unknown[0]}'", "it was written by a newer version; update unilmctl")
    for name, value in raw.items():
        _check(path, name, value)
    return ModelCard(**raw)


def _check(path: Path, name: str, value: object) -> None:
    """Types and bounds of one entry."""
    natural = _is_natural(value)
    allowed = {
        "objective": isinstance(value, str),
        "version": isinstance(value, str),
        "source_segment": natural,
        "target_segment": natural,
        "max_source": natural or value is None,
        "max_target": natural or value is None,
        "truncate": value in ("tail", "head"),
        "separator_in": value in ("source", "target"),
        "head_trained": isinstance(value, bool),
        "generate": isinstance(value, dict),
        "tasks": isinstance(value, dict) and all(map(_is_task, value.values())),
        "fills": value is None or (isinstance(value, dict) and all(map(_is_pair, value.values()))),
    }
    if not allowed[name]:
        raise ModelError(f"{path}: '{name}' cannot be {value!r}")


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_natural, value))


def _is_task(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != LabelTask.__annotations__.keys():
        return False
    texts, stride = [value["task"], value["source"]], value["stride"]
    if value["second"] is not None:
        texts.append(value["second"])
    natural = isinstance(stride, int) and not isinstance(stride, bool) and 0 < stride < 2**31
    return (
        all(isinstance(text, str) for text in texts) and (natural or stride is None) and value["empty"] in (True, False)
    )
