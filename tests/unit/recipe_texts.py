"""Recipes as texts: written into the test's folder, loaded, or refused."""

from pathlib import Path

import pytest

from unilmctl.errors import RecipeError
from unilmctl.recipe import Recipe, load

MINIMAL = "data: {train: {files: [a]}}\nmodel: {init: m}\n"
SCRATCH = "data: {train: {files: [a]}}\nmodel: {architecture: bert}\ntokens: {train: {kind: bpe}}\n"


def write(text: str | bytes, name: str = "r.yaml") -> str:
    """A file in the working folder; gives its name."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def ok(text: str, *overrides: str) -> Recipe:
    """The recipe of a text without mistakes."""
    return load(write(text), overrides)


def mistakes(text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the error that refuses a text."""
    with pytest.raises(RecipeError) as caught:
        load(write(text), overrides)
    assert caught.value.exit_code == 3
    return caught.value.message.splitlines()
