"""A smaller vocabulary: the tokenizer's files with only the tokens on a list.

Ids are given anew in the old order. The five roles, tokens marked as special, and what spells unknown text (the bytes
of a byte-level BPE or of a SentencePiece model with byte fall-back) are always kept, so every text can be encoded. With
a token of a BPE the tokens that it is merged from are kept, or it could not arise any more.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unilmctl.errors import ModelError
from unilmctl.tokens import Tokenizer
from unilmctl.weights.messages import BrokenFileError, fields
from unilmctl.weights.reading import read_json

PIECE_MODELS = ("sentencepiece.bpe.model", "spiece.model")


def cut(tokenizer: Tokenizer, listed: set[str]) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with only the `listed` tokens and those that are always kept, and the old ids in their new order.

    ModelError when its files are of a kind that cannot be cut.
    """
    everything = tokenizer.tokens(range(tokenizer.size))
    with TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save(folder)
        keep = _with_parts(listed | _always_kept(tokenizer, everything, folder), folder)
        ids = [index for index, token in enumerate(everything) if token in keep]
        numbers = {everything[index]: new for new, index in enumerate(ids)}
        for path in sorted(folder.iterdir()):
            _cut_file(path, numbers)
        smaller = Tokenizer.load(folder)
    if smaller.tokens(range(smaller.size)) != [everything[index] for index in ids]:
        raise ModelError("the tokenizer's files cannot be cut to a list of tokens", "cut without --keep-vocabulary")
    return smaller, ids


def _always_kept(tokenizer: Tokenizer, everything: list[str], folder: Path) -> set[str]:
    roles = tokenizer.roles
    kept = {everything[index] for index in (roles.pad, roles.unknown, roles.start, roles.separator, roles.mask)}
    if tokenizer.kind == "bpe":
        kept |= {token for token in everything if len(token) == 1}
    if tokenizer.kind == "sentencepiece":
        kept |= {token for token in everything if token.startswith("<0x") or token in ("<s>", "</s>", "<unk>")}
    if (folder / "tokenizer.json").exists():
        added = read_json(folder / "tokenizer.json").get("added_tokens") or []
        kept |= {str(one["content"]) for one in added if one.get("special")}
    return kept


def _with_parts(tokens: set[str], folder: Path) -> set[str]:
    """The tokens and, in a BPE, all tokens on the way from single characters to them."""
    made: dict[str, tuple[str, str]] = {}
    for left, right in _merges(folder):
        made.setdefault(left + right, (left, right))
    found, waiting = set(tokens), list(tokens)
    while waiting:
        new = [part for part in made.get(waiting.pop(), ()) if part not in found]
        found.update(new)
        waiting += new
    return found


def _merges(folder: Path) -> list[tuple[str, str]]:
    """The merges of a BPE, in their order; none for other kinds."""
    lines: list[Any] = []
    if (folder / "tokenizer.json").exists():
        lines = read_json(folder / "tokenizer.json")["model"].get("merges") or []
    elif (folder / "merges.txt").exists():
        lines = [x for x in (folder / "merges.txt").read_bytes().decode().split("\n") if not x.startswith("#version")]
    pairs = [line.split(" ") if isinstance(line, str) else line for line in lines]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _cut_file(path: Path, numbers: dict[str, int]) -> None:
    """Rewrite one tokenizer file; `numbers` holds the new id of every token that stays."""
    if path.name == "vocab.txt":
        lines = path.read_bytes().decode().split("\n")
        kept = [line for line in lines if line.removesuffix("\r").partition("\t")[0] in numbers]
        path.write_bytes(("\n".join(kept) + "\n").encode())
    elif path.name == "tokenizer.json":
        _write_json(path, _cut_definition(read_json(path), numbers))
    elif path.name in ("vocab.json", "added_tokens.json"):
        _write_json(path, {token: numbers[token] for token in read_json(path) if token in numbers})
    elif path.name == "merges.txt":
        lines = path.read_bytes().decode().split("\n")
        path.write_bytes("\n".join(line for line in lines if _merge_stays(line, numbers)).encode())
    elif path.name in PIECE_MODELS:
        path.write_bytes(_cut_pieces(path.read_bytes(), numbers))
    elif path.name == "tokenizer_config.json":
        config = read_json(path)
        config.pop("added_tokens_decoder", None)  # numbers tokens by their old ids
        _write_json(path, config)


def _merge_stays(line: str, numbers: dict[str, int]) -> bool:
    left, blank, right = line.partition(" ")
    return line.startswith("#version") or not blank or {left, right, left + right} <= numbers.keys()


def _cut_definition(definition: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    """A tokenizer.json with its model, added tokens and special-token templates cut and renumbered."""
    model = definition["model"]
    if model["type"] == "Unigram":
        kept = [entry for entry in model["vocab"] if entry[0] in numbers]
        unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
        model = {**model, "vocab": kept, "unk_id": None if unknown is None else numbers[unknown]}
    else:
        model = {**model, "vocab": {token: numbers[token] for token in model["vocab"] if token in numbers}}
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [[a, b] for a, b in pairs if {a, b, a + b} <= numbers.keys()]
    added = [one for one in definition.get("added_tokens") or [] if one["content"] in numbers]
    return {
        **definition,
        "model": model,
        "added_tokens": [{**one, "id": numbers[one["content"]]} for one in added],
        "post_processor": _renumbered(definition.get("post_processor"), numbers),
        "padding": None,
        "truncation": None,
    }


def _renumbered(processor: Any, numbers: dict[str, int]) -> Any:
    """A post-processor with the new ids of its special tokens ([token, id] pairs, or templates with id lists)."""
    if isinstance(processor, list):
        if len(processor) == 2 and isinstance(processor[0], str) and isinstance(processor[1], int):
            return [processor[0], numbers[processor[0]]]
        return [_renumbered(one, numbers) for one in processor]
    if isinstance(processor, dict):
        if {"ids", "tokens"} <= processor.keys():
            return {**processor, "ids": [numbers[token] for token in processor["tokens"]]}
        return {name: _renumbered(value, numbers) for name, value in processor.items()}
    return processor


def _cut_pieces(model: bytes, numbers: dict[str, int]) -> bytes:
    """A SentencePiece model (protocol buffer) without the pieces that go; everything else is copied byte for byte."""
    kept = []
    try:
        for field in fields(model):
            if field.number == 1:
                piece = next((part.content for part in fields(field.content) if part.number == 1), b"").decode()
                if piece not in numbers and piece not in ("<unk>", "<s>", "</s>"):
                    continue
            kept.append(field.whole)
    except BrokenFileError as error:
        raise ModelError(f"the SentencePiece model cannot be cut ({error})") from error
    return b"".join(kept)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
