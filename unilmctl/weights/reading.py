"""Reading files that somebody else made: nothing in them is executed, and nothing they claim is believed.

JSON is bounded in size, safetensors headers are checked by their library, pickles go through torch's restricted
unpickler and nowhere else: there is no fall-back. Every refusal is a ModelError with its reason.
"""

import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.weights.names import Tensors

LARGEST_JSON = 64 * 2**20

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 64 MiB."""
    refuse_devices(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"{path}: {path.stat().st_size} bytes are too many for a configuration")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no JSON object")
    return found


def refuse_devices(path: Path) -> None:
    """Refuse what is there and no file: a pipe would be waited for, a device be read without end."""
    try:
        strange = path.exists() and not path.is_file()
    except OSError:
        return  # opening it says why
    if strange:
        raise ModelError(f"{path}: is not a file")


def read_safetensors(path: Path) -> Tensors:
    """Every tensor of a `.safetensors` file, on the CPU.

    The file is opened anew for each: what is mapped counts as memory in use until the file is closed.
    """
    with _opened(path) as file:
        names = list(file.keys())
    found = {}
    for name in names:
        with _opened(path) as file:
            found[name] = file.get_tensor(name).clone()
    return found


class Shape(NamedTuple):
    """A tensor as the header of a file describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def read_shapes(path: Path) -> list[Shape]:
    """What the header of a `.safetensors` file lists, in the order of the names."""
    with _opened(path) as file:
        slices = [(name, file.get_slice(name)) for name in sorted(file.keys())]
        return [Shape(name, tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; whatever is wrong with it is a ModelError."""
    refuse_devices(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: not a sound safetensors file ({error})") from error


def read_pickle(path: Path) -> Tensors:
    """The state dict in a `.bin` or `.pt` file, by torch's restricted unpickler alone: no code of the file is run."""
    zipped = _refuse_archives(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of old pickle protocols, storages, ...
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a foreign file makes the unpickler raise, the file is refused
        raise ModelError(f"{path}: {_why_refused(error)}", "nothing in the file was executed") from error
    return _state_dict(found, path)


def _refuse_archives(path: Path) -> bool:
    """Whether the file is a zip archive as torch writes it; ModelError for other archives."""
    refuse_devices(path)
    try:
        if not zipfile.is_zipfile(path):
            if _is_tar(path):
                raise ModelError(f"{path}: torch's old tar format is refused: it cannot be read safely")
            return False
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: not a sound archive ({error})") from error
    names = [member.filename for member in members]
    if len(names) != len(set(names)):
        raise ModelError(f"{path}: the archive has two members of one name")
    if any(name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) for name in names):
        raise ModelError(f"{path}: the archive has a member that points out of it")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ModelError(f"{path}: the archive is compressed, which torch never does")
    return True


def _is_tar(path: Path) -> bool:
    """Whether it begins as a plain tar; it is not looked into, for the sizes that it claims may be any."""
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _why_refused(error: Exception) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted:
        return f"the pickle asks for '{wanted[1]}', which is no part of a table of weights; refused"
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].partition("Weights only load failed.")[0].strip() or "it holds more than weights"
    return f"not a file of weights that can be read without running its code ({reason[:200]})"


WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs keep the weights."""


def _state_dict(found: object, path: Path) -> Tensors:
    """The mapping from names to tensors in what was read; other entries are dropped."""
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors: Tensors = {}
    if isinstance(found, dict):
        tensors = {k: v.detach() for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise ModelError(f"{path}: holds no named tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise ModelError(f"{path}: '{name}' is not a dense table of numbers")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > 2 * path.stat().st_size:  # twice: a tied table has two names
        raise ModelError(f"{path}: its tensors claim {claimed:,} bytes, more than the file can hold")
    return tensors


def checked(name: str, tensor: Tensor, shape: torch.Size, where: str) -> Tensor:
    """The tensor as float32 in storage of its own; ModelError unless it is a float tensor of this shape."""
    if tensor.shape != shape:
        raise ModelError(
            f"{where}: '{name}' has shape {list(tensor.shape)}, config.json asks for {list(shape)}",
            "the configuration belongs to another checkpoint",
        )
    if tensor.dtype not in FLOATS:
        raise ModelError(f"{where}: '{name}' is {tensor.dtype}, not a table of floats")
    own = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor.detach().to(torch.float32, copy=not own).contiguous()
