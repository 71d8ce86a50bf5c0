"""Holes that others had, by the numbers under which they were published: no version with the hole can be installed, and
what they were made of is nowhere in the package.
"""

import ast
import pickle
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from test_weights_pickles import Calls
from tiny_training import feed_of, optimizer_of, options_of, tiny_encoder

import unilmctl
from unilmctl.runs.checkpoint import _load_shards, _save_shards
from unilmctl.training import optimizer_tensors, train

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [
    Requirement(line) for line in [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
]
PINNED = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))

FLOORS = {
    "CVE-2025-32434": ("torch", "2.6"),
    "CVE-2026-24747": ("torch", "2.10"),
    "CVE-2026-4372": ("transformers", "5.3"),
    "CVE-2026-1260": ("sentencepiece", "0.2.2"),
    "CVE-2024-39705": ("nltk", "3.9"),
    "CVE-2025-14009": ("nltk", "3.9.3"),
}
"""What closed it, and from which version on."""


@pytest.mark.parametrize("hole", FLOORS)
def test_no_version_with_the_hole_can_be_installed(hole: str) -> None:
    name, floor = FLOORS[hole]
    lowest = [Version(one.version) for required in REQUIRED if required.name == name for one in required.specifier]
    assert lowest
    assert min(Version(PINNED[name]), Version(version(name)), *lowest) >= Version(floor)


ABSENT = {
    "CVE-2026-58659": "lightning",
    "GHSA-w37p-236h-pfx3": "pytorch-lightning",
    "CVE-2025-62727": "starlette",
    "jieba.cache read by marshal": "jieba",
    "hydra's _target_": "hydra-core",
}
"""What is not needed, directly or by what is needed."""


@pytest.mark.parametrize("hole", ABSENT)
def test_what_has_the_hole_is_not_needed(hole: str) -> None:
    assert ABSENT[hole] not in {name.lower().replace("_", "-") for name in (*PINNED, *(one.name for one in REQUIRED))}


def named(node: ast.AST) -> str:
    """A call's function or an attribute, as it is written."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def unsafe_load(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or named(node) != "torch.load":
        return False
    return not any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in node.keywords)


def imports(*modules: str) -> Callable[[ast.AST], bool]:
    def found(node: ast.AST) -> bool:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        return any(name == module or name.startswith(f"{module}.") for name in names for module in modules)

    return found


def calls(pattern: str) -> Callable[[ast.AST], bool]:
    return lambda node: isinstance(node, ast.Call) and re.fullmatch(pattern, named(node)) is not None


def says(pattern: str) -> Callable[[ast.AST], bool]:
    return lambda node: isinstance(node, ast.Constant) and re.fullmatch(pattern, str(node.value)) is not None


def imports_what_is_told(node: ast.AST) -> bool:
    """An import by a name that is no word of the program."""
    by_name = calls(r"(importlib\.)?import_module|__import__")(node)
    return by_name and not (isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant))


KINDS: dict[str, Callable[[ast.AST], bool]] = {
    "CVE-2025-53002, CVE-2026-31253: torch.load of more than weights": unsafe_load,
    "code from pickles": imports("dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "joblib"),
    "pickles of others": calls(r"pickle\.(load|Unpickler)|(np|numpy)\.(load|fromfile)|pandas\.read_pickle"),
    "archives that are unpacked": calls(r".*\.(extract|extractall|unpack_archive)"),
    "code from text": calls(r"eval|exec|compile|yaml\.(load|unsafe_load|full_load)|.*\.(literal_eval|run_path)"),
    "a configuration that names code": imports_what_is_told,
    "a configuration that names code, by other libraries": says(r"trust_remote_code|_target_|_instantiator|auto_map"),
    "CVE-2024-39705: data of nltk": calls(r"nltk\.(download|data\..*)"),
    "jieba's cache in a folder of everybody": imports("jieba"),
    "models of transformers": imports("transformers"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_its_kind_is_in_the_package(kind: str) -> None:
    files = sorted(Path(unilmctl.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    found = [
        (path.name, ast.unparse(node))
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if KINDS[kind](node)
    ]
    assert found == []


BAD = """
torch.load(path); torch.load(path, weights_only=False); import dill; pickle.load(file); archive.extractall()
eval(text); importlib.import_module(name); f(trust_remote_code=True, **{"_target_": 1}); nltk.download("punkt")
import jieba; from transformers.models import bert
"""


@pytest.mark.parametrize("kind", KINDS)
def test_it_would_be_seen(kind: str) -> None:
    assert any(KINDS[kind](node) for node in ast.walk(ast.parse(BAD)))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_pickle_beside_shared_moments_is_not_read(tmp_path: Path) -> None:
    """torch.distributed.checkpoint keeps what it knows in a pickle, `.metadata`; moments are read without it."""
    encoder, options = tiny_encoder(), options_of()
    optimizer = optimizer_of(encoder, options)
    list(train(encoder, optimizer, feed_of(), options))
    moments = optimizer_tensors(encoder, optimizer)
    _save_shards(tmp_path / "training", moments)
    assert {path.suffix for path in (tmp_path / "training").iterdir()} == {".safetensors"}
    (tmp_path / "training" / ".metadata").write_bytes(pickle.dumps(Calls(Path.touch, tmp_path / "done")))
    found = _load_shards(tmp_path / "training", encoder)
    assert found.keys() == moments.keys()
    assert all(tensor.equal(moments[name]) for name, tensor in found.items())
    assert not (tmp_path / "done").exists()
