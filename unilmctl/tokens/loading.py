"""A model folder's tokenizer files to an engine."""

import json
import re
from pathlib import Path
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.tokens.engines import Engine, FastEngine, bpe_definition, only_special, wordpiece_definition
from unilmctl.tokens.pieces import AlbertText, PieceEngine
from unilmctl.tokens.segmented import SegmentedEngine

LARGEST_FILE = 64 * 2**20  # bytes; XLM-R's, of a quarter of a million pieces, has 17 million
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

MPNET_NAMES = {"pad": ("<pad>",), "unknown": ("[UNK]",), "start": ("<s>",), "separator": ("</s>",), "mask": ("<mask>",)}
"""MPNet's: its vocabulary has BERT's special tokens too, and never uses them."""

ROFORMER = "RoFormerTokenizer"

TOLD_BY_MODEL = {
    "xlm-roberta": ("XLMRobertaTokenizer", SENTENCEPIECE_FILES),
    "albert": ("AlbertTokenizer", SENTENCEPIECE_FILES),
    "mpnet": ("MPNetTokenizer", ("vocab.txt", "tokenizer.json")),
    "roformer": (ROFORMER, ("vocab.txt", "tokenizer.json")),
}
"""Models whose tokenizer is read in a way of its own, the class of transformers that does so, and the files it has. (A
Chinese ALBERT has BERT's tokenizer, and so has a RoFormer whose vocabulary holds characters.)"""

KINDS = {"WordPiece": "wordpiece", "BPE": "bpe", "Unigram": "sentencepiece"}


def open_engine(folder: Path) -> Engine:
    """The engine of `folder`: an XLM-R SentencePiece model, else tokenizer.json, else the older files.

    ModelError when there is nothing usable, or something broken.
    """
    files = _read(folder)
    try:
        return _choose(folder, _with_class(folder, files))
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
        known = (*MPNET_NAMES[role], *usual) if _is(files, "MPNet") else tuple(usual)
        names[role] = (said, *(one for one in known if one != said)) if isinstance(said, str) else known
    return names


def _choose(folder: Path, files: dict[str, bytes]) -> Engine:
    pieces = next((name for name in SENTENCEPIECE_FILES if name in files), None)
    if pieces and (_is(files, "XLMRoberta") or "tokenizer.json" not in files):
        return _sentencepiece(folder / pieces, files)
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
        return {name: content_of(folder / name) for name in FILES if (folder / name).is_file()}
    except OSError as error:
        raise ModelError(f"{folder}: cannot read the tokenizer: {error.strerror or error}") from error


def content_of(path: Path) -> bytes:
    """The bytes of a file of a tokenizer. ModelError when it cannot be read, or is too large to be one."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path}: {path.stat().st_size} bytes are too many for a file of a tokenizer")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def _with_class(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files, with tokenizer_config.json naming a class that only the folder's config.json tells.

    Saved beside another model they would be read in another way without it.
    """
    path = folder / "config.json"
    config = _json({path.name: content_of(path)}, path.name) if path.is_file() else {}
    for model, (name, usual) in TOLD_BY_MODEL.items():
        told = str(config.get("model_type")).startswith(model) or str(config.get("tokenizer_class")).startswith(name)
        if name == ROFORMER and not _holds_words(files):
            continue
        if told and not _is(files, name) and not files.keys().isdisjoint(usual):
            said = _json(files, "tokenizer_config.json") | {"tokenizer_class": name}
            return {**files, "tokenizer_config.json": (json.dumps(said, ensure_ascii=False) + "\n").encode()}
    return files


def _is(files: dict[str, bytes], name: str) -> bool:
    """Whether tokenizer_config.json names a class of transformers that begins with `name`."""
    return str(_json(files, "tokenizer_config.json").get("tokenizer_class")).startswith(name)


def _holds_words(files: dict[str, bytes]) -> bool:
    """Whether a vocabulary has words of several ideographs, as only a segmenter finds them."""
    model = _json(files, "tokenizer.json").get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = (
        vocabulary
        if isinstance(vocabulary, dict)
        else files.get("vocab.txt", b"").decode("utf-8", "replace").split("\n")
    )
    return any(re.fullmatch("[\u4e00-\u9fff]{2,}\r?", token) for token in tokens)


def _whole(folder: Path, files: dict[str, bytes]) -> Engine:
    definition = _json(files, "tokenizer.json")
    model = definition.get("model")
    kind = KINDS.get(str(model.get("type", "")) if isinstance(model, dict) else "")
    if kind is None:
        raise ModelError(f"{folder / 'tokenizer.json'}: not a WordPiece, BPE or Unigram tokenizer")
    if kind != "wordpiece" and not definition.get("decoder"):
        raise ModelError(f"{folder / 'tokenizer.json'}: has no decoder, so that its tokens cannot become text again")
    special = [name for names in role_names(files).values() for name in names]
    if kind == "wordpiece" and _is(files, ROFORMER):  # transformers cannot write its splitter, and writes BERT's
        definition["pre_tokenizer"] = {"type": "WhitespaceSplit"}
        return SegmentedEngine(kind, only_special(definition, special), files)
    return FastEngine(kind, only_special(definition, special), files)


def _wordpiece(folder: Path, files: dict[str, bytes]) -> Engine:
    tokens = _lines(folder / "vocab.txt", files["vocab.txt"])
    if tokens and all(token.rpartition("\t")[2].isdecimal() and "\t" in token for token in tokens):
        tokens = _numbered(tokens, folder / "vocab.txt")
        files = {**files, "vocab.txt": "".join(token + "\n" for token in tokens).encode()}
    vocabulary = {token: i for i, token in enumerate(tokens)}
    config = _json(files, "tokenizer_config.json")
    lowercase = config.get("do_lower_case")
    if not isinstance(lowercase, bool):
        lowercase = not any(token != token.lower() for token in tokens if not token.startswith(("[", "<")))
    accents, chinese = config.get("strip_accents"), config.get("tokenize_chinese_chars", True)
    words = _is(files, ROFORMER)
    definition = wordpiece_definition(
        vocabulary, lowercase=lowercase, accents=accents, chinese=bool(chinese) and not words, words=words
    )
    engine = (SegmentedEngine if words else FastEngine)("wordpiece", definition, files)
    engine.vocabulary = tokens  # a token that is listed twice has two ids, and so has the model's embedding
    return engine


def _numbered(lines: list[str], path: Path) -> list[str]:
    """The tokens of "token<tab>id" lines, as ERNIE writes them."""
    tokens, numbers = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
    if [int(number) for number in numbers] != list(range(len(lines))):
        raise ModelError(f"{path}: its tokens are not numbered 0, 1, 2, ...")
    return list(tokens)


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


def _sentencepiece(path: Path, files: dict[str, bytes]) -> Engine:
    if not files[path.name]:  # the library takes an empty model and answers nonsense
        raise ModelError(f"{path}: the file is empty")
    if _is(files, "Albert"):
        config = _json(files, "tokenizer_config.json")
        lowercase, accents = config.get("do_lower_case", True), config.get("keep_accents", False)
        return PieceEngine(files[path.name], files, albert=AlbertText(bool(lowercase), bool(accents)))
    engine = PieceEngine(files[path.name], files)
    if _is(files, "XLMRoberta") and "<pad>" not in engine.vocabulary:  # one trained here has it, and is not renumbered
        return PieceEngine(files[path.name], files, fairseq=True)
    return engine


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
