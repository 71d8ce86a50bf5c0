"""What a search remembers of its sentences: tensors with one entry a sentence in front.

Shapes: N sentences.
"""

from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Table:
    """The base of a dataclass all of whose fields are tensors [N, ...] or tables of N sentences."""

    def __getitem__(self, sentences: Tensor) -> Self:
        """These sentences [N'], in this order."""
        return type(self)(*(part[sentences] for part in self._parts()))

    def joined(self, other: Self) -> Self:
        """With the sentences of `other` after those of this one."""
        return type(self)(*(_joined(one, two) for one, two in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> "list[Tensor | Table]":
        return [getattr(self, field.name) for field in fields(self)]


TableT = TypeVar("TableT", bound=Table)


def _joined(one: "Tensor | Table", two: "Tensor | Table") -> "Tensor | Table":
    if isinstance(one, Table):
        assert isinstance(two, Table), "both tables have the same fields"
        return one.joined(two)
    assert isinstance(two, Tensor), "both tables have the same fields"
    return torch.cat((one, two))
