"""How to decode: the options of `generate`, their defaults, and the combinations that have no meaning."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from unilmctl.decoding import FORMATS
from unilmctl.errors import UsageError
from unilmctl.model.devices import NAMES

SEARCHES = ("beam", "greedy", "sample", "contrastive", "s2s-ft")
NORMALIZATIONS = ("penalty", "average", "none")
MAX_LENGTH = 48
CANDIDATES = 4
WHOLE = (
    "beam",
    "nbest",
    "beam_groups",
    "min_length",
    "max_length",
    "no_repeat_ngram",
    "drafts",
    "top_k",
    "seed",
    "batch_tokens",
    "workers",
)
NUMBERS = (
    "length_penalty",
    "diversity",
    "coverage_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "alpha",
)
OPTIONAL = ("max_length", "top_k", "top_p", "min_p", "typical_p", "workers")
"""Options that may be None."""

LEAST = {
    "beam": 1,
    "nbest": 1,
    "beam_groups": 1,
    "diversity": 0,
    "coverage_penalty": 0,
    "min_length": 0,
    "max_length": 1,
    "no_repeat_ngram": 0,
    "drafts": 0,
    "top_k": 1,
    "batch_tokens": 1,
    "workers": 1,
}
SHARES = ("top_p", "min_p", "typical_p")
"""Options above 0 and at most 1."""

MEANT_FOR = {
    "beam": ("beam", "s2s-ft"),
    "beam_groups": ("beam",),
    "diversity": ("beam",),
    "coverage_penalty": ("beam",),
    "repetition_penalty": ("beam", "greedy", "sample", "contrastive"),
    "forbid_phrase": ("beam", "greedy", "sample", "contrastive"),
    "must": ("beam",),
    "drafts": ("greedy",),
    "temperature": ("sample",),
    "top_k": ("sample", "contrastive"),
    "alpha": ("contrastive",),
    "top_p": ("sample",),
    "min_p": ("sample",),
    "typical_p": ("sample",),
}
"""The searches that an option is for, if it is not for all of them."""

BINDING = {"repetition_penalty": 1.0, "forbid_phrase": (), "must": ()}
"""Options, with their neutral values, that change what every search writes: one that does not know them is refused.
The others of `MEANT_FOR` are settings of their searches, which a recipe may hold beside those of another."""


@dataclass(frozen=True)
class GenerateOptions:
    """Options of decoding, by their names on the command line.

    `max_length` counts the final separator, `min_length` does not; None: the model card's `max_target`, or 48.
    `no_repeat_ignore` and `forbid` are vocabulary entries; `forbid_phrase` and `must` are texts that no output and
    every output holds. `drafts`: most tokens of an output that are guessed and
    then verified in one pass. The filters `top_k`, `top_p`, `min_p`, `typical_p`: None for no limit. `batch_tokens`
    bounds what is decoded at a time: sentences x (longest source + beams x longest output). `workers`: processes that
    share the work; None for what suits it. `device`: see `device_named`; whoever opens the model puts it there.
    """

    search: str = "beam"
    beam: int = 5
    nbest: int = 1
    beam_groups: int = 1
    diversity: float = 0.0
    length_penalty: float = 0.0
    length_normalization: str = "penalty"
    coverage_penalty: float = 0.0
    min_length: int = 0
    max_length: int | None = None
    no_repeat_ngram: int = 0
    no_repeat_ignore: tuple[str, ...] = field(default=())
    repetition_penalty: float = 1.0
    forbid: tuple[str, ...] = field(default=())
    forbid_phrase: tuple[str, ...] = field(default=())
    must: tuple[str, ...] = field(default=())
    drafts: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    alpha: float = 0.6
    seed: int = 1
    attention: bool = False
    dtype: str = "auto"
    device: str = "auto"
    batch_tokens: int = 16384
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuses, with a UsageError, what cannot be meant."""
        _one_of("search", self.search, SEARCHES)
        _one_of("length_normalization", self.length_normalization, NORMALIZATIONS)
        _one_of("dtype", self.dtype, FORMATS)
        if not NAMES.fullmatch(self.device):
            raise UsageError(f"device cannot be '{self.device}'", "auto, cpu, cuda or cuda:N")
        self._check_bounds()
        self._check_lengths()
        self._check_outputs()
        for name, neutral in BINDING.items():
            if getattr(self, name) != neutral and self.search not in MEANT_FOR[name]:
                raise UsageError(f"{name} has no meaning for {self.search} search", f"--search {MEANT_FOR[name][0]}")

    def _check_bounds(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{name} is {value}; it must be at least {least}")
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UsageError(f"{name} is {value}; it must be above 0 and at most 1")
        if not self.temperature > 0:
            raise UsageError(f"temperature is {self.temperature}; it must be above 0", "--search greedy for no chance")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is {self.alpha}; it must be at least 0 and at most 1")
        if not self.repetition_penalty > 0:
            raise UsageError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0", "1 is none")

    def _check_lengths(self) -> None:
        if self.max_length is not None and self.search != "s2s-ft" and self.min_length >= self.max_length:
            raise UsageError(
                f"min_length {self.min_length} leaves no room below max_length {self.max_length}",
                "max_length counts the end of the output, min_length does not",
            )

    def _check_outputs(self) -> None:
        beam, groups = self.beam, self.beam_groups
        if self.search in ("greedy", "contrastive") and self.nbest > 1:
            raise UsageError(
                f"{self.search} search has one output, not {self.nbest}", "--search beam or --search sample"
            )
        if self.search in ("beam", "s2s-ft") and self.nbest > beam:
            raise UsageError(f"a beam of {beam} cannot give {self.nbest} outputs", f"--beam {self.nbest}")
        if self.search != "beam":
            return
        if beam % groups:
            raise UsageError(
                f"a beam of {beam} cannot be {groups} groups of one size", f"--beam {-(-beam // groups) * groups}"
            )
        if groups > 1 and self.diversity == 0:
            raise UsageError(f"{groups} groups without diversity would all write the same", "--diversity 0.5")
        if groups == 1 and self.diversity > 0:
            raise UsageError("diversity is between groups, and there is one", "--beam-groups 2 or more")
        if groups > 1 and self.must:
            raise UsageError("groups of a beam know no phrases that must appear", "--beam-groups 1")

    def refuse_strangers(self, given: Iterable[str]) -> None:
        """UsageError for the first of these options, given for this very run, that the search has no use for."""
        for name in given:
            searches = MEANT_FOR.get(name, (self.search,))
            if self.search not in searches:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} has no meaning for {self.search} search", f"--search {searches[0]}")

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
        rows = {"beam": self.beam, "s2s-ft": self.beam, "greedy": 1, "sample": self.nbest}
        return self.candidates if self.search == "contrastive" else rows[self.search]

    @property
    def candidates(self) -> int:
        """Continuations that contrastive search compares."""
        return self.top_k or CANDIDATES


def _typed(name: str, value: object, default: object) -> object:
    """The value as its field has it; UsageError when it is of another kind."""
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if isinstance(default, tuple) and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if name in WHOLE and (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if name in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (value is None and name in OPTIONAL) or (isinstance(default, str) and isinstance(value, str)):
        return value
    raise UsageError(f"{name} cannot be {value!r}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} cannot be '{value}'", f"one of {', '.join(allowed)}")
