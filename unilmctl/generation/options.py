"""How to decode: the options of `generate`, their defaults, and the combinations that have no meaning."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from unilmctl.decoding import FORMATS
from unilmctl.errors import UsageError

SEARCHES = ("beam", "greedy", "sample", "s2s-ft")
NORMALIZATIONS = ("penalty", "average", "none")
MAX_LENGTH = 48
WHOLE = ("beam", "nbest", "min_length", "max_length", "no_repeat_ngram", "top_k", "seed", "batch_tokens", "workers")
NUMBERS = ("length_penalty", "temperature", "top_p")


@dataclass(frozen=True)
class GenerateOptions:
    """Options of decoding, by their names on the command line.

    `max_length` counts the final separator, `min_length` does not; None: the model card's `max_target`, or 48.
    `no_repeat_ignore` and `forbid` are vocabulary entries. `top_k` and `top_p`: None for no limit. `batch_tokens`
    bounds what is decoded at a time: sentences x (longest source + beams x longest output). `workers`: processes that
    share the work; None for what suits it.
    """

    search: str = "beam"
    beam: int = 5
    nbest: int = 1
    length_penalty: float = 0.0
    length_normalization: str = "penalty"
    min_length: int = 0
    max_length: int | None = None
    no_repeat_ngram: int = 0
    no_repeat_ignore: tuple[str, ...] = field(default=())
    forbid: tuple[str, ...] = field(default=())
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 1
    dtype: str = "auto"
    batch_tokens: int = 16384
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuses, with a UsageError, what cannot be meant."""
        _one_of("search", self.search, SEARCHES)
        _one_of("length_normalization", self.length_normalization, NORMALIZATIONS)
        _one_of("dtype", self.dtype, FORMATS)
        for name, least in (("beam", 1), ("nbest", 1), ("min_length", 0), ("no_repeat_ngram", 0), ("batch_tokens", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; it must be at least 1")
        self._check_lengths()
        self._check_sampling()
        if self.search == "greedy" and self.nbest > 1:
            raise UsageError(f"greedy search has one output, not {self.nbest}", "--search beam or --search sample")
        if self.search in ("beam", "s2s-ft") and self.nbest > self.beam:
            raise UsageError(f"a beam of {self.beam} cannot give {self.nbest} outputs", f"--beam {self.nbest}")

    def _check_lengths(self) -> None:
        if self.max_length is None:
            return
        if self.max_length < 1:
            raise UsageError(f"max_length is {self.max_length}; it must be at least 1")
        if self.search != "s2s-ft" and self.min_length >= self.max_length:
            raise UsageError(
                f"min_length {self.min_length} leaves no room below max_length {self.max_length}",
                "max_length counts the end of the output, min_length does not",
            )

    def _check_sampling(self) -> None:
        if not self.temperature > 0:
            raise UsageError(f"temperature is {self.temperature}; it must be above 0", "--search greedy for no chance")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}; it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    def updated(self, given: Mapping[str, Any]) -> "GenerateOptions":
        """These options with those of `given` over them, as from a recipe, a model card or the command line.

        UsageError for a name that is no option.
        """
        known = [option.name for option in fields(self)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(f"'{name}' is no decoding option", f"did you mean '{near[0]}'?" if near else None)
        values: dict[str, Any] = {name: _typed(name, value, getattr(self, name)) for name, value in given.items()}
        return replace(self, **values)

    @property
    def outputs(self) -> int:
        """Rows that a sentence takes while it is decoded."""
        return {"beam": self.beam, "s2s-ft": self.beam, "greedy": 1, "sample": self.nbest}[self.search]


def _typed(name: str, value: object, default: object) -> object:
    """The value as its field has it; UsageError when it is of another kind."""
    if isinstance(default, tuple) and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if name in WHOLE and (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if name in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (value is None and name in ("max_length", "top_k", "top_p", "workers")) or (
        isinstance(default, str) and isinstance(value, str)
    ):
        return value
    raise UsageError(f"{name} cannot be {value!r}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} cannot be '{value}'", f"one of {', '.join(allowed)}")
