"""One checkpoint: a model folder, the optimiser's moments beside it, and where training stands.

The moments of a model that is shared out among processes are a folder of safetensors, written and read by all of them
through torch.distributed.checkpoint. Any number of processes goes on from either form.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from unilmctl.errors import ModelError, WriteError
from unilmctl.files import write_atomically, write_errors
from unilmctl.model import Encoder
from unilmctl.model.adapters import adapting_of
from unilmctl.runs.folder import Best
from unilmctl.tokens import Tokenizer
from unilmctl.training import Position, load_optimizer, optimizer_tensors
from unilmctl.training.averages import Averages, hidden_tensors, load_hidden, shown, shown_state
from unilmctl.training.distributed import ALONE, Processes
from unilmctl.training.sharding import is_sharded, whole
from unilmctl.training.state import empty_tensors
from unilmctl.weights import ModelCard, save_model
from unilmctl.weights.peft import save_adapter

STATE = "state.json"
MOMENTS = "training.safetensors"
SHARDS = "training"
FRESH = "start over with --fresh"


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
    processes: Processes = ALONE,
    averages: Averages | None = None,
) -> None:
    """Writes model, moments and state into `folder`, which the caller then publishes.

    All processes call it together: the first one writes, and each its share of what is shared out.
    """
    if is_sharded(encoder):
        _save_shards(folder / SHARDS, optimizer_tensors(encoder, optimizer))
    model = whole(encoder, processes)
    if model is None:
        return
    save_model(folder, shown(model, averages), card, tokenizer)
    if (adapting := adapting_of(model)) is not None:
        save_adapter(folder, model.config, adapting, shown_state(model, averages))
    if not is_sharded(encoder):
        moments = optimizer_tensors(encoder, optimizer) | hidden_tensors(encoder, averages)
        _save_moments(folder / MOMENTS, moments)
    with write_atomically(folder / STATE) as file:
        file.write((json.dumps(_plain(state), indent=1) + "\n").encode())


def read_state(folder: Path) -> State:
    """The state of a checkpoint; ModelError when it has none that can be read."""
    try:
        raw = json.loads((folder / STATE).read_bytes())
        best = None if raw["best"] is None else Best(str(raw["best"]["name"]), float(raw["best"]["value"]))
        position = Position(**{name: int(count) for name, count in raw["position"].items()})
        sums = {name: float(value) for name, value in raw["sums"].items()}
        return State(position, sums, best, bool(raw["evaluated"]), str(raw["data"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{folder / STATE}: cannot go on from it ({error})", FRESH) from error


def load_checkpoint(
    folder: Path, encoder: Encoder, optimizer: torch.optim.Optimizer, *, averages: Averages | None = None
) -> State:
    """Puts a checkpoint's moments into the optimiser and returns its state; the weights come by `load_model`.

    Where those in training are not those of the model, with averages and adapters, they are put in their places too.
    """
    state = read_state(folder)
    found = _load_shards(folder / SHARDS, encoder) if (folder / SHARDS).is_dir() else _load_moments(folder / MOMENTS)
    load_hidden(encoder, averages, found)
    load_optimizer(encoder, optimizer, found)
    return state


def _save_moments(path: Path, tensors: dict[str, Tensor]) -> None:
    with write_errors(path):
        try:
            save_file(tensors, path)
        except SafetensorError as error:
            raise WriteError(f"cannot write {path}: {error}") from error


def _load_moments(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot go on from it ({error})", FRESH) from error


def _save_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Each process writes a file with its share: pieces of tensors, and where in them they belong."""
    try:
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise WriteError(f"cannot write {folder}: {next(iter(error.failures.values()))[0]}") from error


def _load_shards(folder: Path, encoder: Encoder) -> dict[str, Tensor]:
    """The tensors of `optimizer_tensors`, shared out as the encoder is now."""
    reader = HuggingFaceStorageReader(str(folder))
    tensors = empty_tensors(encoder, reader.read_metadata().state_dict_metadata)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is all there is
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors


def _plain(state: State) -> dict[str, Any]:
    best = None if state.best is None else state.best._asdict()
    return {**asdict(state), "position": state.position._asdict(), "best": best}
