"""A model folder's tokenizer files to an engine."""

import json
from pathlib import Path
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.tokens.engines import Engine, FastEngine, bpe_definition, only_special, wordpiece_definition
from unilmctl.tokens.pieces import PieceEngine

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model")
SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE_FILES, *SIDE_FILES)

ROLE_NAMES = {
    "pad": ("pad_token", "[PAD]", "<pad>"),
    "unknown": ("unk_token", "[UNK]", "<unk>"),
    "start": ("cls_token", "[CLS]", "<s>"),
    "separator": ("sep_token", "[SEP]", "</s>"),
    "mask": ("mask_token", "[MASK]", "<mask>"),
}
"""Role -> (its key in tokenizer_config.json, its usual names)."""

KINDS = {"WordPiece": "wordpiece", "BPE": "bpe", "Unigram": "sentencepiece"}


def open_engine(folder: Path) -> Engine:
    """The engine of `folder`: an XLM-R SentencePiece model, else tokenizer.json, else the older files.

    ModelError when there is nothing usable, or something broken.
    """
    files = _read(folder)
    try:
        return _choose(folder, files)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise bare Exception, RuntimeError, OSError for a broken file
        raise ModelError(f"{folder}: the tokenizer files are broken: {_first_line(error)}") from error


def role_names(files: dict[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Role -> names to look for: what the folder's configuration says first, then the usual ones."""
    config = _json(files, "special_tokens_map.json") | _json(files, "tokenizer_config.json")
    names = {}
    for role, (key, *usual) in ROLE_NAMES.items():
        said = config.get(key)
        said = said.get("content") if isinstance(said, dict) else said
        names[role] = (said, *(one for one in usual if one != said)) if isinstance(said, str) else tuple(usual)
    return names


def _choose(folder: Path, files: dict[str, bytes]) -> Engine:
    pieces = next((name for name in SENTENCEPIECE_FILES if name in files), None)
    fairseq = pieces is not None and _is_fairseq(folder, files)
    if pieces and (fairseq or "tokenizer.json" not in files):
        return _sentencepiece(folder / pieces, files, fairseq=fairseq)
    if "tokenizer.json" in files:
        return _whole(folder, files)
    if "vocab.txt" in files:
        return _wordpiece(folder, files)
    if {"vocab.json", "merges.txt"} <= files.keys():
        return _bpe(folder, files)
    raise ModelError(
        f"{folder}: no tokenizer here",
        "a model folder has tokenizer.json, vocab.txt, vocab.json with merges.txt, or sentencepiece.bpe.model",
    )


def _read(folder: Path) -> dict[str, bytes]:
    """The folder's tokenizer files as bytes."""
    try:
        return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    except OSError as error:
        raise ModelError(f"{folder}: cannot read the tokenizer: {error.strerror or error}") from error


def _whole(folder: Path, files: dict[str, bytes]) -> Engine:
    definition = _json(files, "tokenizer.json")
    model = definition.get("model")
    kind = KINDS.get(str(model.get("type", "")) if isinstance(model, dict) else "")
    if kind is None:
        raise ModelError(f"{folder / 'tokenizer.json'}: not a WordPiece, BPE or Unigram tokenizer")
    if kind != "wordpiece" and not definition.get("decoder"):
        raise ModelError(f"{folder / 'tokenizer.json'}: has no decoder, so that its tokens cannot become text again")
    special = [name for names in role_names(files).values() for name in names]
    return FastEngine(kind, only_special(definition, special), files)


def _wordpiece(folder: Path, files: dict[str, bytes]) -> Engine:
    tokens = _lines(folder / "vocab.txt", files["vocab.txt"])
    if tokens and all(token.rpartition("\t")[2].isdecimal() and "\t" in token for token in tokens):
        tokens = [token.rpartition("\t")[0] for token in tokens]  # ERNIE writes "token<tab>id"
    vocabulary = {token: i for i, token in enumerate(tokens)}
    config = _json(files, "tokenizer_config.json")
    lowercase = config.get("do_lower_case")
    if not isinstance(lowercase, bool):
        lowercase = not any(token != token.lower() for token in tokens if not token.startswith(("[", "<")))
    accents, chinese = config.get("strip_accents"), config.get("tokenize_chinese_chars", True)
    definition = wordpiece_definition(vocabulary, lowercase=lowercase, accents=accents, chinese=bool(chinese))
    engine = FastEngine("wordpiece", definition, files)
    engine.vocabulary = tokens  # a token that is listed twice has two ids, and so has the model's embedding
    return engine


def _bpe(folder: Path, files: dict[str, bytes]) -> Engine:
    lines = _lines(folder / "merges.txt", files["merges.txt"])
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    bad = next((merge for merge in merges if len(merge) != 2), None)
    if bad is not None:
        raise ModelError(f"{folder / 'merges.txt'}: a merge is two tokens, not {' '.join(bad)!r}")
    prefix_space = bool(_json(files, "tokenizer_config.json").get("add_prefix_space", False))
    definition = bpe_definition(
        _json(files, "vocab.json"), [(one[0], one[1]) for one in merges], prefix_space=prefix_space
    )
    return FastEngine("bpe", definition, files)


def _sentencepiece(path: Path, files: dict[str, bytes], *, fairseq: bool) -> Engine:
    if not files[path.name]:  # the library takes an empty model and answers nonsense
        raise ModelError(f"{path}: the file is empty")
    engine = PieceEngine(files[path.name], files, fairseq=False)
    if fairseq and "<pad>" not in engine.vocabulary:  # a model trained here has one, and needs no renumbering
        return PieceEngine(files[path.name], files, fairseq=True)
    return engine


def _is_fairseq(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether the folder's configuration says that ids are numbered as in XLM-R."""
    config = folder / "config.json"
    model_type = (
        _json({"config.json": config.read_bytes()}, "config.json").get("model_type") if config.is_file() else ""
    )
    tokenizer_class = _json(files, "tokenizer_config.json").get("tokenizer_class")
    return str(model_type).startswith("xlm-roberta") or str(tokenizer_class).startswith("XLMRoberta")


def _lines(path: Path, content: bytes) -> list[str]:
    """Lines of a vocabulary file: split on line feeds alone, one carriage return stripped."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 (byte {error.start})") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    """A JSON object among `files`; {} when it is absent."""
    if name not in files:
        return {}
    try:
        value = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: not JSON: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name}: not a JSON object")
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
