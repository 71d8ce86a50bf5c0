"""Formulas of whole numbers, `2*i+1`: how the rows of a recipe say when a token is written.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "//" | "%") factor)*
    factor  = number | name | "-" factor | "(" sum ")"

A formula is read once into a list for a stack, and then computed on arrays. There is nothing in it that could run code.

Shapes: T values of each name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from unilmctl.rows import Ints
from unilmctl.visibility import FOREVER

LONGEST = 80
"""Characters of a formula; so nothing is nested deeply."""

LARGEST = FOREVER
"""What no number reaches on the way; so that no product overflows."""

_PART = re.compile(r"\s*(?:([0-9]+)|([a-z]+)|(//|[-+*%()])|(\S))")

_OPERATORS: dict[str, Callable[[Ints, Ints], Ints]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "//": np.floor_divide,
    "%": np.remainder,
}


@dataclass(frozen=True)
class Formula:
    """A formula: its text, and numbers, names and operators in the order in which a stack computes them."""

    text: str
    program: tuple[int | str, ...]

    def __call__(self, values: Mapping[str, Ints]) -> Ints:
        """The values [T], from those of the names, each [T]; ValueError for too large a number or division by zero."""
        size = len(next(iter(values.values())))
        stack: list[Ints] = []
        for item in self.program:
            if isinstance(item, int):
                stack.append(np.full(size, item, dtype=np.int64))
            elif item not in _OPERATORS:
                stack.append(values[item])
            else:
                right, left = stack.pop(), stack.pop()
                if item in ("//", "%") and not right.all():
                    raise ValueError(f"'{self.text}' divides by zero")
                stack.append(_OPERATORS[item](left, right))
            if (np.abs(stack[-1]) >= LARGEST).any():
                raise ValueError(f"'{self.text}' exceeds {LARGEST}")
        return stack[0]


def read_formula(text: str, names: tuple[str, ...]) -> Formula:
    """The formula that `text` says over these names; ValueError, with the text in it, for anything else."""
    if len(text) > LONGEST:
        raise ValueError(f"a formula of {len(text)} characters is too long (at most {LONGEST})")
    reader = _Reader(text, _split(text, names))
    reader.sum()
    if reader.parts:
        raise ValueError(f"'{text}': '{reader.parts[0]}' is one too many")
    return Formula(text, tuple(reader.program))


def _split(text: str, names: tuple[str, ...]) -> list[int | str]:
    parts: list[int | str] = []
    for number, name, sign, other in _PART.findall(text):
        if other:
            raise ValueError(f"'{text}': '{other}' is no number, name or sign")
        if name and name not in names:
            raise ValueError(f"'{text}': there is no '{name}' here; there are {', '.join(names)}")
        if number and int(number) >= LARGEST:
            raise ValueError(f"'{text}' exceeds {LARGEST}")
        parts.append(int(number) if number else name or sign)
    return parts


class _Reader:
    """Reads parts from the left, and writes what a stack needs."""

    def __init__(self, text: str, parts: list[int | str]) -> None:
        self.text, self.parts, self.program = text, parts, list[int | str]()

    def sum(self) -> None:
        self._chain(("+", "-"), self._product)

    def _product(self) -> None:
        self._chain(("*", "//", "%"), self._factor)

    def _chain(self, signs: tuple[str, ...], operand: Callable[[], None]) -> None:
        operand()
        while self.parts and self.parts[0] in signs:
            sign = self.parts.pop(0)
            operand()
            self.program.append(sign)

    def _factor(self) -> None:
        if not self.parts:
            raise ValueError(f"'{self.text}' ends too early")
        part = self.parts.pop(0)
        if part == "-":
            self.program.append(0)
            self._factor()
            self.program.append("-")
        elif part == "(":
            self.sum()
            if not self.parts or self.parts.pop(0) != ")":
                raise ValueError(f"'{self.text}' lacks a ')'")
        elif isinstance(part, int) or part.isalpha():
            self.program.append(part)
        else:
            raise ValueError(f"'{self.text}': '{part}' stands where a number or a name should")
