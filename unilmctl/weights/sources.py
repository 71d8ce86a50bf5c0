"""Where a checkpoint's pieces lie: a folder, a single file with its configuration beside it, or `hf:NAME`.

A checkpoint of TensorFlow is several files, and is called by its index, or by what their names have in common.

A folder may come from anywhere, so a link in it that points out of it is refused. (The cache of huggingface_hub, whose
links point to its own store of blobs, is the exception.)
"""

from pathlib import Path
from typing import NamedTuple

from unilmctl.errors import ModelError, UserError
from unilmctl.weights.names import Tensors
from unilmctl.weights.reading import read_json, read_pickle, read_safetensors, refuse_devices
from unilmctl.weights.tensorflow import read_bundle

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights in a folder, the preferred one first."""

CONFIG_FILES = ("config.json", "bert_config.json", "albert_config.json")

PICKLES = (".bin", ".pt", ".pth")

SINGLE = (".safetensors", *PICKLES, ".index")
"""What the name of a file ends with that holds a checkpoint, or says where its parts are."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


class Source(NamedTuple):
    """A checkpoint's files; `tokenizer` is the folder or the vocabulary file beside it, None when there is neither."""

    folder: Path
    weights: Path
    config: Path
    tokenizer: Path | None


def locate(source: str, config: Path | None = None) -> Source:
    """Find the files of `source`: a folder, a weight file, or `hf:NAME`. ModelError when one cannot be found."""
    path = download(source.removeprefix("hf:")) if source.startswith("hf:") else Path(source)
    if path.is_dir():
        return _in_folder(path, config)
    if not path.exists() and Path(f"{source}.index").exists():
        path = Path(f"{source}.index")
    if not path.exists():
        raise ModelError(f"{source}: no such file or folder", "to fetch from the Hugging Face hub, write hf:NAME")
    if path.name.endswith((".meta", ".h5", ".msgpack", ".onnx")):
        raise ModelError(f"{path}: this format is not read", "give the model in PyTorch or safetensors format")
    if path.suffix not in SINGLE:
        raise ModelError(f"{path}: neither a folder nor a .safetensors, .bin, .pt or .index file")
    return Source(path.parent, path, config or _config_beside(path), _tokenizer_beside(path))


def _in_folder(folder: Path, config: Path | None) -> Source:
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if weights is None:
        weights = _only_weights(folder)
    if config is None:
        config = next((folder / name for name in CONFIG_FILES if (folder / name).exists()), None)
        if config is None:
            raise ModelError(f"{folder}: no config.json", "say where it is with --config FILE")
        refuse_outside(folder, config)
    refuse_outside(folder, weights)
    has_tokenizer = any((folder / name).exists() for name in TOKENIZER_FILES)
    return Source(folder, weights, config, folder if has_tokenizer else None)


def _only_weights(folder: Path) -> Path:
    found = sorted(path for path in folder.iterdir() if path.suffix in SINGLE)
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelError(f"{folder}: has several weight files", f"name one of them: {', '.join(map(str, found))}")
    raise ModelError(f"{folder}: no weights here", f"looked for {', '.join(WEIGHT_FILES)}")


def _config_beside(weights: Path) -> Path:
    """config.json beside a file, or NAME-config.json / NAME.json for NAME.bin (as UniLM's releases have it)."""
    stem = weights.stem
    names = (f"{stem}-config.json", f"{stem}.json", *CONFIG_FILES)
    found = next((weights.with_name(name) for name in names if weights.with_name(name).exists()), None)
    if found is None:
        raise ModelError(f"{weights}: no configuration beside it", "say where it is with --config FILE")
    return found


def _tokenizer_beside(weights: Path) -> Path | None:
    """NAME-vocab.txt for NAME.bin, or the folder when it has tokenizer files."""
    vocabulary = weights.with_name(f"{weights.stem}-vocab.txt")
    if vocabulary.exists():
        return vocabulary
    return weights.parent if any(weights.with_name(name).exists() for name in TOKENIZER_FILES) else None


def read_tensors(weights: Path) -> Tensors:
    """All tensors of a weight file, or of the parts that an index names."""
    if weights.name.endswith(".index.json"):
        return _read_parts(weights)
    if weights.suffix == ".index":
        refuse_devices(weights)
        for part in weights.parent.iterdir():
            if part.name.startswith(f"{weights.stem}.data-"):
                refuse_outside(weights.parent, part)
                refuse_devices(part)
        return read_bundle(weights)
    return read_safetensors(weights) if weights.suffix == ".safetensors" else read_pickle(weights)


def _read_parts(index: Path) -> Tensors:
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise ModelError(f"{index}: 'weight_map' does not name files")
    tensors: Tensors = {}
    for name in sorted(set(parts.values())):
        named = Path(name).name == name and len(name) < 256 and "\0" not in name
        if not named or Path(name).suffix not in (".safetensors", *PICKLES):
            raise ModelError(f"{index}: {name[:80]!r} is not a weight file of the same folder")
        refuse_outside(index.parent, index.parent / name)
        tensors |= read_tensors(index.parent / name)
    return tensors


def refuse_outside(folder: Path, path: Path) -> None:
    """Refuse a file that is a link out of `folder`: a foreign folder could so publish any file of this machine."""
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":  # the hub's cache: snapshots/REVISION/x -> ../../blobs/HASH
        allowed.append(folder.resolve().parent.parent / "blobs")
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise ModelError(f"{path}: is a link that leads nowhere") from error
    if not any(target.is_relative_to(place) for place in allowed):
        raise ModelError(f"{path}: is a link out of its folder, to {target}; refused", "replace the link by the file")


def download(name: str) -> Path:
    """Fetch a model from the Hugging Face hub into its cache and return the folder.

    UserError without the `hub` extra, ModelError when the network or the hub refuses.
    """
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(
            f"hf:{name}: fetching models needs huggingface_hub",
            "pip install 'unilmctl[hub]', or convert a local folder",
        ) from error
    wanted = [*CONFIG_FILES, *TOKENIZER_FILES]
    try:
        folder = Path(
            snapshot_download(name, allow_patterns=[*wanted, "model*.safetensors", "*.safetensors.index.json"])
        )
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin", "*.bin.index.json"]))
    except Exception as error:  # the hub's client raises its own errors, those of HTTP and those of the system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"hf:{name}: cannot be fetched ({reason})", "check the name and the network") from error
    return folder
