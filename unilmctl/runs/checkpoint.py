"""One checkpoint: a model folder, the optimiser's moments beside it, and where training stands."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unilmctl.errors import ModelError, WriteError
from unilmctl.files import write_atomically, write_errors
from unilmctl.model import Encoder
from unilmctl.runs.folder import Best
from unilmctl.tokens import Tokenizer
from unilmctl.training import Position, load_optimizer, optimizer_tensors
from unilmctl.weights import ModelCard, save_model

STATE = "state.json"
MOMENTS = "training.safetensors"


@dataclass(frozen=True)
class State:
    """Where training stands, in plain numbers: there is no random state to keep.

    `sums` are those of the log interval that has begun, `evaluated` says whether this step's evaluation is done, `data`
    is the fingerprint of the examples.
    """

    position: Position
    sums: dict[str, float]
    best: Best | None
    evaluated: bool
    data: str


def save_checkpoint(
    folder: Path,
    encoder: Encoder,
    card: ModelCard,
    tokenizer: Tokenizer,
    *,
    optimizer: torch.optim.Optimizer,
    state: State,
) -> None:
    """Writes model, moments and state into `folder`, which the caller then publishes."""
    save_model(folder, encoder, card, tokenizer)
    with write_errors(folder / MOMENTS):
        try:
            save_file(optimizer_tensors(encoder, optimizer), folder / MOMENTS)
        except SafetensorError as error:
            raise WriteError(f"cannot write {folder / MOMENTS}: {error}") from error
    with write_atomically(folder / STATE) as file:
        file.write((json.dumps(_plain(state), indent=1) + "\n").encode())


def read_state(folder: Path) -> State:
    """The state of a checkpoint; ModelError when it has none that can be read."""
    try:
        raw = json.loads((folder / STATE).read_bytes())
        best = None if raw["best"] is None else Best(**raw["best"])
        return State(Position(**raw["position"]), raw["sums"], best, raw["evaluated"], raw["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / STATE}: cannot go on from it ({error})", "start over with --fresh") from error


def load_checkpoint(folder: Path, encoder: Encoder, optimizer: torch.optim.Optimizer) -> State:
    """Puts a checkpoint's moments into the optimiser and returns its state; the weights come by `load_model`."""
    state = read_state(folder)
    load_optimizer(encoder, optimizer, load_file(folder / MOMENTS))
    return state


def _plain(state: State) -> dict[str, Any]:
    best = None if state.best is None else state.best._asdict()
    return {**asdict(state), "position": state.position._asdict(), "best": best}
