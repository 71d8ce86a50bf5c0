"""Which parameters a recipe leaves as they are, by patterns over their names.

A pattern names a parameter or a part of the model, as `embeddings` or `layers.3.attention`; `*` stands for anything,
`0-5` for 0, 1, 2, 3, 4, 5.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase

from unilmctl.errors import RecipeError

RANGE = re.compile(r"(?<![^.])(\d+)-(\d+)(?![^.])")


def frozen(names: Collection[str], patterns: Collection[str]) -> set[str]:
    """The parameters among `names` that the patterns mean.

    RecipeError for a pattern that means none, with those it may have meant, and when nothing is left to train.
    """
    parts = {name: _parts(name) for name in names}
    found: set[str] = set()
    for pattern in patterns:
        for glob in _expanded(pattern):
            meant = {name for name, own in parts.items() if any(fnmatchcase(part, glob) for part in own)}
            if not meant:
                raise _unknown(pattern, glob, dict.fromkeys(part for own in parts.values() for part in own))
            found |= meant
    if found and found == set(names):
        raise RecipeError("finetune.freeze: nothing is left to train", "leave out one of the patterns")
    return found


def _unknown(pattern: str, glob: str, known: Collection[str]) -> RecipeError:
    near = get_close_matches(glob, list(known), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "patterns are such as embeddings, layers.0-5, *.norm"
    meant = f"'{pattern}'" if glob == pattern else f"'{glob}' of '{pattern}'"
    return RecipeError(f"finetune.freeze: {meant} is no part of the model", hint)


def _parts(name: str) -> list[str]:
    """`a.b.c`, and what it is a part of: `a.b`, `a`."""
    words = name.split(".")
    return [".".join(words[:count]) for count in range(len(words), 0, -1)]


def _expanded(pattern: str) -> list[str]:
    """The pattern without ranges: one for every number of its first range, and so on."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    numbers = range(int(match.group(1)), int(match.group(2)) + 1)
    return [
        inner
        for number in numbers
        for inner in _expanded(f"{pattern[: match.start()]}{number}{pattern[match.end() :]}")
    ] or [pattern]
