"""unilmctl inspect model: the parameters, shapes and checksums of a model folder, without loading its weights."""

import json
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl import console
from unilmctl.errors import ModelError
from unilmctl.files import MANIFEST, sha256, verify_manifest
from unilmctl.model import ModelConfig
from unilmctl.runs import model_folder
from unilmctl.weights import ModelCard, Shape, read_card, read_config, read_shapes

SIZES = ("family", "vocabulary", "hidden", "layers", "heads", "feedforward", "positions", "segments")
"""Settings that are always shown; the others are where they are not BERT's."""


class Checksum(NamedTuple):
    """A file of the folder."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ModelReport:
    """What lies in a model folder.

    `config` is what config.json describes, or why it describes nothing that can be used. `problems` is what differs
    from MANIFEST.json, None when there is no manifest; `card` None without unilmctl.json.
    """

    folder: Path
    config: ModelConfig | str
    tensors: list[Shape]
    files: list[Checksum]
    problems: list[str] | None
    card: ModelCard | None

    @property
    def settings(self) -> dict[str, Any]:
        """The sizes, and what distinguishes the encoder from a BERT."""
        if isinstance(self.config, str):
            return {"unusable": self.config}
        found = asdict(self.config)
        other = [field.name for field in fields(ModelConfig) if getattr(self.config, field.name) != field.default]
        return {name: found[name] for name in dict.fromkeys((*SIZES, *other))}

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(prod(tensor.shape) for tensor in self.tensors)


def run(*, folder: Path, as_json: bool = False) -> ModelReport:
    """Show what lies in a model folder, or in a run's best checkpoint (tables, or one JSON object), and return it.

    Raises ModelError when there is no model, or when the manifest and the files differ (after showing them).
    """
    report = inspect(model_folder(folder))
    if as_json:
        console.emit(json.dumps(to_json(report), ensure_ascii=False))
    else:
        _show(report)
    if report.problems:
        raise ModelError("\n".join(report.problems), "the folder was changed after it was written, or is damaged")
    return report


def inspect(folder: Path) -> ModelReport:
    """Read headers and checksums; ModelError when the folder holds no model.safetensors."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{folder}: 'model.safetensors' is missing", "make a model folder of it: unilmctl convert")
    files = [
        Checksum(path.name, path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir()) if path.is_file()
    ]
    problems = verify_manifest(folder) if (folder / MANIFEST).exists() else None
    try:
        config: ModelConfig | str = read_config(folder)
    except ModelError as error:
        config = error.message
    return ModelReport(folder, config, read_shapes(weights), files, problems, read_card(folder))


def to_json(report: ModelReport) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "folder": str(report.folder),
        "settings": report.settings,
        "parameters": report.parameters,
        "tensors": [
            {"name": one.name, "shape": list(one.shape), "dtype": one.dtype, "parameters": prod(one.shape)}
            for one in report.tensors
        ],
        "files": [one._asdict() for one in report.files],
        "manifest": None if report.problems is None else {"problems": report.problems},
        "card": None if report.card is None else asdict(report.card),
    }


def _show(report: ModelReport) -> None:
    console.table(["setting", "value"], [(name, json.dumps(value)) for name, value in report.settings.items()])
    rows = [(one.name, " x ".join(map(str, one.shape)), one.dtype, prod(one.shape)) for one in report.tensors]
    console.table(
        ["tensor", "shape", "dtype", "parameters"],
        [*rows, (f"total of {len(rows)} tensors", "", "", report.parameters)],
        title=str(report.folder),
    )
    console.table(["file", "bytes", "sha256"], report.files)
    if report.card is not None:
        card = asdict(report.card)
        console.table(["card", "value"], [(name, json.dumps(value)) for name, value in card.items()])
    if report.problems is None:
        console.say("no MANIFEST.json: whether the files are whole cannot be told")
    elif not report.problems:
        console.say("every file is as MANIFEST.json says")
