"""What is fuzzed: readers of files that anybody may have made. Whatever the bytes, a reader gives a value, or a
UserError that names the file; no other exception, no hang, no memory beyond `MEMORY`.

A target writes the bytes where its reader looks for them, and reads. The first byte says at which door they enter: as
which of several files, or behind a length or a checksum that no mutation would ever get right.
"""

import gzip
import io
import json
import pickle
import resource
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import tiny_bundles as bundles
import torch
from recipe_texts import MINIMAL
from safetensors.torch import save
from test_hostile_models import tensor, zipped
from tiny_checkpoints import WORDS, tiny, write_vocabulary

from unilmctl.commands.evaluate import read_hypotheses, read_references, read_sources
from unilmctl.data.documents import TextReader, TextTally
from unilmctl.data.labelled import READ, LabelColumns, label_set, labelled_lines, parsed_lines
from unilmctl.data.reading import POLICIES, read
from unilmctl.data.streams import blocks, opened
from unilmctl.errors import RecipeError, UserError
from unilmctl.files import verify_manifest, write_manifest
from unilmctl.generation.lines import read_records
from unilmctl.recipe import load
from unilmctl.recipe.shelf import shelf
from unilmctl.runs.checkpoint import read_state
from unilmctl.runs.folder import RunFolder, model_folder
from unilmctl.tokens import Tokenizer, train
from unilmctl.weights import ModelCard, load_model, save_model
from unilmctl.weights.messages import BrokenFileError, fields
from unilmctl.weights.reading import read_pickle, read_safetensors, read_shapes
from unilmctl.weights.sources import read_tensors
from unilmctl.weights.tables import uncompressed
from unilmctl.weights.tensorflow import read_bundle

MEMORY = 2**30
"""Bytes of address space that an input may make a reader ask for."""

TEXT = "a bad 中文 e\u0301 👍 [MASK]"


class Target(NamedTuple):
    """A reader: what it does with bytes in a folder, and inputs to begin with."""

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]


def refusal(target: Target, data: bytes, folder: Path) -> str | None:
    """Why the reader refuses these bytes, None when it takes them. Whatever is no UserError passes through."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    try:
        target.read(data, folder)
    except UserError as error:
        said = error.message
    else:
        return None
    assert any(path.name in said for path in (folder, *folder.rglob("*"))), said
    return said


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, this process gets `MEMORY` bytes and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def door(data: bytes, doors: int) -> tuple[int, bytes]:
    """Which door the first byte names, and the bytes behind it."""
    return (data[0] if data else 0) % doors, data[1:]


def behind(number: int, *contents: bytes) -> list[bytes]:
    """Inputs that enter at a door."""
    return [bytes([number]) + content for content in contents]


COLUMNS = LabelColumns("src", None, "tgt")
FORMATS = ("jsonl", "tsv", "csv", "auto")
WAYS = [(form, way) for form in FORMATS for way in (*POLICIES, *(READ if form != "auto" else ()))]
"""Format of the lines, and what is done with bad ones, or the task whose labels they hold."""


def read_lines(data: bytes, folder: Path) -> object:
    """Pairs and labelled texts, the file gzipped soundly, or as it is."""
    number, content = door(data, 2 * len(WAYS))
    form, way = WAYS[number // 2]
    path = folder / "lines"
    path.write_bytes(gzip.compress(content, 1) if number % 2 else content)
    if way in POLICIES:
        return list(read([path], format=form, on_bad_line=way, need_target=form != "auto"))
    raw = labelled_lines([path], format=form, columns=COLUMNS, task=way)
    return label_set(parsed_lines(raw, on_bad_line="fail"), way)


def line_seeds() -> list[bytes]:
    contents = {
        "jsonl": '{"src": "a b", "tgt": ["c"], "refs": ["d"], "id": 1}\n{"src": "\\ud83d\\udc4d", "tgt": "1"}\n',
        "tsv": "src\ttgt\na b\tX Y\n",
        "csv": 'src,tgt\n"a, ""b""\nc","1.5"\n',
        "auto": "\ufeffa 中\r\nb\n",
    }
    return [
        sound
        for number, (form, _) in enumerate(WAYS)
        for sound in behind(2 * number, contents[form].encode(), gzip.compress(contents[form].encode()))
    ]


DOCUMENTS = [
    (form, documents, given)
    for form in ("jsonl", "text")
    for documents in ("blank-line", "lines")
    for given in (None, "given")
]
ANSWERED = [(form, policy) for form in ("auto", "jsonl", "text") for policy in POLICIES]


def read_streams(data: bytes, folder: Path) -> object:
    """What `generate` and `evaluate` are given, and documents for pre-training."""
    number, content = door(data, 2 * len(ANSWERED) + len(DOCUMENTS) + 4)
    path = folder / ("lines.gz" if number % 2 else "lines")
    path.write_bytes(content)
    if number < 2 * len(ANSWERED):
        form, policy = ANSWERED[number // 2]
        return list(read_records(str(path), format=form, on_bad_line=policy))
    if number < 2 * len(ANSWERED) + 4:
        return read_hypotheses(path) if number % 4 < 2 else (read_references([path]), read_sources(path))
    form, documents, given = DOCUMENTS[number - 2 * len(ANSWERED) - 4]
    reader = TextReader(documents, segmenter=given, policy=POLICIES[len(content) % len(POLICIES)])
    with opened(path) as stream:
        return [reader.sentences(block, TextTally()) for block in blocks(str(path), stream, form)]


def stream_seeds() -> list[bytes]:
    contents = [
        b'{"src": "a b", "prefix": ["c"], "phrases": ["d"]}\n\n{"src": ["a"]}\n',
        b'{"hypotheses": [{"text": "a"}], "src": "b"}\n{"task": "tag", "tags": ["A"]}\n',
        b'{"refs": ["a", null], "src": "x"}\n',
        b'{"answers": {"text": ["a"]}}\n{"label": 1.5}\n{"tgt": ["a", "b"]}\n',
        b'{"text": "One. Two! \\u4e2d\\u3002"}\n{"text": [["a", "b"], ["c"]]}\n{"text": ["a", "b"]}\n',
        "a 中。\r\n\n\tb\n".encode(),
    ]
    doors = 2 * len(ANSWERED) + len(DOCUMENTS) + 4
    return [
        sound
        for number in range(doors)
        for sound in behind(number, contents[number % len(contents)], gzip.compress(contents[number % len(contents)]))
    ]


def read_recipe(data: bytes, folder: Path) -> object:
    """A recipe, or an override of a sound one."""
    number, content = door(data, 2)
    path = folder / "recipe.yaml"
    path.write_bytes(MINIMAL.encode() if number else content)
    try:
        return load(path, [content.decode(errors="surrogateescape")] if number else [])
    except RecipeError as error:
        if number and "--set" in error.message:
            return None
        raise


def recipe_seeds() -> list[bytes]:
    whole = [path.read_bytes() for path in sorted(shelf().glob("*.yaml")) if path.stat().st_size < 2000]
    odd = [b"a: &a [*a, !!int 1, 0x1f, .inf, 1e-4, ~]", b'%YAML 1.2\n---\nseed: "\\u00e9\\x41"\n', b"extends: e2e\n"]
    return behind(0, *whole, *odd) + behind(1, b"finetune.steps=10", b"data.train={files: [a]}", b"a.b=[1, {c: d}]")


def read_header(data: bytes, folder: Path) -> object:
    """A safetensors file, or one whose header has its right length."""
    number, content = door(data, 2)
    path = folder / "model.safetensors"
    header, _, body = content.partition(b"\n")
    path.write_bytes(len(header).to_bytes(8, "little") + header + body if number else content)
    return read_shapes(path), read_safetensors(path)


def header_seeds() -> list[bytes]:
    kinds = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
    whole = save({str(kind): torch.zeros(2, 3).to(kind) for kind in kinds}, metadata={"format": "pt"})
    size = int.from_bytes(whole[:8], "little")
    return [*behind(0, whole), *behind(1, whole[8 : 8 + size] + b"\n" + whole[8 + size :])]


SETTINGS = (
    "config.json", "unilmctl.json", "MANIFEST.json", "state.json", "model.safetensors.index.json", "log.jsonl", "best",
    "step-1.json",
)  # fmt: skip


@cache
def model_files() -> dict[str, bytes]:
    """The files of a sound checkpoint."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder)
        save_model(folder, tiny(), ModelCard(max_source=9, tasks={}), Tokenizer.load(folder))
        write_manifest(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_settings(data: bytes, folder: Path) -> object:
    """One of the small files of a model or run folder, all others sound."""
    number, content = door(data, len(SETTINGS))
    name = SETTINGS[number]
    for file, sound in model_files().items():
        (folder / file).write_bytes(sound)
    (folder / name).write_bytes(content)
    if name == "MANIFEST.json":
        return verify_manifest(folder)
    if name == "state.json":
        return read_state(folder)
    if name.endswith(".index.json"):
        return read_tensors(folder / name)
    if name == "log.jsonl":
        return RunFolder(folder).read_log()
    if name == "step-1.json":
        (folder / "skipped").mkdir()
        (folder / name).rename(folder / "skipped" / name)
        return RunFolder(folder).read_skipped(1)
    if name == "best":
        (folder / "config.json").unlink()
        return model_folder(folder)
    return load_model(folder)


def settings_seeds() -> list[bytes]:
    state = {
        "position": {"step": 1, "epoch": 0, "batch": 1},
        "sums": {"loss": 1.0},
        "best": {"name": "step-1", "value": 0.5},
        "evaluated": True,
        "data": "abc",
    }
    contents = {
        **model_files(),
        "state.json": json.dumps(state).encode(),
        "model.safetensors.index.json": b'{"weight_map": {"a": "model.safetensors"}}',
        "log.jsonl": b'{"event": "steps", "step": 1}\n{"event": "evaluation", "step": 1}\n',
        "best": b"step-1\n",
        "step-1.json": b'{"step": 1, "batches": [{"epoch": 0, "examples": [3, 4]}]}',
    }
    return [sound for number, name in enumerate(SETTINGS) for sound in behind(number, contents[name])]


VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "merges.txt", "vocab.json", "sentencepiece.bpe.model", "tokenizer_config.json",
    "special_tokens_map.json", "config.json",
)  # fmt: skip
KINDS = ("wordpiece", "bpe", "sentencepiece")


@cache
def vocabulary_files() -> dict[str, dict[str, bytes]]:
    """The files of a sound tokenizer of each kind; those of WordPiece and BPE in their older form too."""
    found = {}
    for kind in KINDS:
        with TemporaryDirectory() as name:
            train(["a bad word, another one", "中文 é 👍"] * 3, kind=kind, size=330).save(Path(name))
            found[kind] = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    model = json.loads(found["bpe"]["tokenizer.json"])["model"]
    found["bpe"]["vocab.json"] = json.dumps(model["vocab"]).encode()
    found["bpe"]["merges.txt"] = "".join(" ".join(pair) + "\n" for pair in model["merges"]).encode()
    name = "sentencepiece.bpe.model"  # without its table of characters, which alone has 200 KB
    found["sentencepiece"][name] = b"".join(
        part.whole for part in fields(found["sentencepiece"].pop("spiece.model")) if part.number != 3
    )
    found["wordpiece"]["vocab.txt"] = ("\n".join(WORDS) + "\n").encode()
    return found


def read_vocabulary(data: bytes, folder: Path) -> object:
    """One file of a tokenizer, all others sound; what is read must encode and decode."""
    number, content = door(data, len(VOCABULARIES) * len(KINDS))
    name, kind = VOCABULARIES[number % len(VOCABULARIES)], KINDS[number // len(VOCABULARIES)]
    whole = name == "tokenizer.json" or number % 3
    for file, sound in vocabulary_files()[kind].items():
        if whole or file != "tokenizer.json":
            (folder / file).write_bytes(sound)
    (folder / name).write_bytes(content)
    made = Tokenizer.load(folder)
    return made.decode(made.encode(TEXT)), made.continues()


def vocabulary_seeds() -> list[bytes]:
    small = {
        "tokenizer_config.json": b'{"do_lower_case": true, "tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}',
        "special_tokens_map.json": b'{"pad_token": {"content": "[PAD]"}}',
        "config.json": b'{"model_type": "xlm-roberta"}',
    }
    found = []
    for number in range(len(VOCABULARIES) * len(KINDS)):
        files = small | vocabulary_files()[KINDS[number // len(VOCABULARIES)]]
        found += behind(number, files.get(VOCABULARIES[number % len(VOCABULARIES)], b""))
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {word: number for number, word in enumerate(WORDS)}}
    return found + behind(0, json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode())


def read_tensorflow(data: bytes, folder: Path) -> object:
    """An index, one block of it, one entry, or what Snappy compressed."""
    number, content = door(data, 4)
    index = folder / "model.index"
    (folder / "model.data-00000-of-00001").write_bytes(bytes(64))
    if number == 0:
        index.write_bytes(content)
    elif number == 1:
        at, size = len(bundles.closed(content)), bundles.varint(len(content))
        blocks = bundles.block({b"z": bundles.varint(0) + size}, every=1)
        footer = bundles.varint(0) + bundles.varint(0) + bundles.varint(at) + bundles.varint(len(blocks))
        magic = (0xDB4775248B80FB57).to_bytes(8, "little")
        index.write_bytes(bundles.closed(content) + bundles.closed(blocks) + footer.ljust(40, b"\0") + magic)
    elif number == 2:
        bundles.written(folder / "model", [{b"": bundles.HEADER, b"a/kernel": content}], bytes(64))
    else:
        try:
            return uncompressed(content)
        except BrokenFileError:
            return None
    return read_bundle(index)


def tensorflow_seeds() -> list[bytes]:
    with TemporaryDirectory() as name:
        path = Path(name) / "model"
        index = bundles.bundle(path, {"a/kernel": torch.ones(2, 4), "a/bias": torch.ones(4)}).read_bytes()
        packed = bundles.written(path, [{b"": bundles.HEADER, b"a": b"a" * 60}], snappy=True).read_bytes()
    one = bundles.entry(1, (2, 4), 0, 32, bundles.checksum(bytes(32)))
    return [
        *behind(0, index, packed),
        *behind(1, bundles.block({b"": bundles.HEADER, b"a/bias": one, b"a/kernel": one})),
        *behind(2, one),
        *behind(3, bundles.compressed(b"abcdabcdabcd" * 9)),
    ]


def read_weights(data: bytes, folder: Path) -> object:
    """A pickle as it is, or in the archive in which torch keeps it."""
    number, content = door(data, 2)
    path = folder / "pytorch_model.bin"
    if number:
        zipped(path, content, _0=bytes(16))
    else:
        path.write_bytes(content)
    return read_pickle(path)


def weight_seeds() -> list[bytes]:
    found = []
    for zip_file in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.ones(4), "b": [1, (None, 2.5)]}, file, _use_new_zipfile_serialization=zip_file)
        found += behind(0, file.getvalue())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as out:
        out.addfile(tarfile.TarInfo("a" * 200))
    found += behind(0, archive.getvalue()[:2048])
    plain = [pickle.dumps({"a": [1, "b", (2.5, {"c": None})], "d": b"x" * 9}, protocol=number) for number in range(5)]
    return found + behind(1, tensor(), *plain)


TARGETS: dict[str, Target] = {
    "lines": Target(read_lines, line_seeds),
    "streams": Target(read_streams, stream_seeds),
    "recipe": Target(read_recipe, recipe_seeds),
    "header": Target(read_header, header_seeds),
    "settings": Target(read_settings, settings_seeds),
    "vocabulary": Target(read_vocabulary, vocabulary_seeds),
    "tensorflow": Target(read_tensorflow, tensorflow_seeds),
    "weights": Target(read_weights, weight_seeds),
}
"""Text of every format, to learn from and to answer; recipes; safetensors; the small files of models and runs;
tokenizers; checkpoints of TensorFlow; pickles."""
