"""A relation between keys that does not hold, and what relations ask of splits."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unilmctl.recipe.schema import Recipe, Split
from unilmctl.recipe.syntax import Path, path_of

SPLITS = ("train", "valid", "test")


class Broken(NamedTuple):
    """A relation that does not hold: the keys that take part (`a.b c.d`), and the sentence."""

    keys: str
    text: str

    @property
    def paths(self) -> list[Path]:
        """The keys as paths."""
        return [path_of(key) for key in self.keys.split()]


def written_otherwise(recipe: Recipe, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The splits that have another value than the default under one of these keys, and the key."""
    for name in SPLITS:
        split = getattr(recipe.data, name)
        for key in keys:
            if split is not None and getattr(split, key) != Split.model_fields[key].default:
                yield name, key
