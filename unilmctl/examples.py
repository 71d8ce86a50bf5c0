"""Data that the project makes itself, so that the quickstart needs no download: numbers to words.

A line asks for a number in English or in Chinese ("en 4,217", "zh 4,217"), and its target is the number in words
("four thousand two hundred and seventeen", "四千二百一十七"). Everything is a pure function of the number: the same
lines on every machine. Train, valid and test hold different numbers, told apart by a hash.

English is written with the British "and" and without hyphens, Chinese with 一十 inside a number and 十 at its start.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from unilmctl.errors import UsageError
from unilmctl.files import write_atomically

LARGEST = 99_999
SIZES = {"train": 12_000, "valid": 200, "test": 500}
"""Numbers in each split at most; every number gives two lines."""

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_DIGITS = "零一二三四五六七八九"
_UNITS = ("", "十", "百", "千", "万")


def english(number: int) -> str:
    """A number from 0 to 99,999 in English words: 4217 is "four thousand two hundred and seventeen"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return " ".join([_TENS[number // 10 - 2], *([_ONES[number % 10]] if number % 10 else [])])
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = f"{english(number // size)} {name}", number % size
    if not rest:
        return head
    return f"{head} and {english(rest)}" if rest < 100 else f"{head} {english(rest)}"


def chinese(number: int) -> str:
    """A number from 0 to 99,999 in Chinese: 4217 is "四千二百一十七"; one 零 stands for a run of inner zeros."""
    if number < 10:
        return _DIGITS[number]
    digits = str(number)
    text = ""
    for place, digit in zip(reversed(range(len(digits))), digits, strict=True):
        if digit != "0":
            text += _DIGITS[int(digit)] + _UNITS[place]
        elif not text.endswith(_DIGITS[0]):
            text += _DIGITS[0]
    text = text.rstrip(_DIGITS[0])
    return text[1:] if text.startswith("一十") else text


def split_of(number: int) -> str:
    """The split that a number belongs to: one in ten is for validation, one in ten for the test."""
    share = sha256(str(number).encode()).digest()[0] % 10
    return {0: "test", 1: "valid"}.get(share, "train")


def numbers(split: str) -> Iterator[dict[str, str]]:
    """The lines of a split, `{"src", "tgt"}`: as many five-digit numbers as four-digit ones, and all short ones."""
    for number in _chosen(split):
        yield {"src": f"en {number:,}", "tgt": english(number)}
        yield {"src": f"zh {number:,}", "tgt": chinese(number)}


def _chosen(split: str) -> list[int]:
    """The numbers of a split, in an order that a hash decides; long numbers are drawn by the same hash."""
    own = [number for number in range(LARGEST + 1) if split_of(number) == split]
    own.sort(key=lambda number: sha256(f"order {number}".encode()).digest())
    room = SIZES[split]
    short = [number for number in own if number < 1000][: room // 10]
    four = [number for number in own if 1000 <= number < 10_000][: (room - len(short)) // 2]
    five = [number for number in own if number >= 10_000][: room - len(short) - len(four)]
    chosen = {*short, *four, *five}
    return [number for number in own if number in chosen]


EXAMPLES: dict[str, Callable[[str], Iterator[dict[str, str]]]] = {"numbers": numbers}
"""Every built-in data set by its name: split -> lines."""


def write_missing(name: str, files: Mapping[str, Path]) -> list[Path]:
    """Writes the files (split -> path) that are not there as JSON lines; gives the paths that were written.

    Raises UsageError for a name or a split that does not exist.
    """
    if name not in EXAMPLES:
        raise UsageError(f"no built-in data is called '{name}'", f"there is: {', '.join(EXAMPLES)}")
    unknown = [split for split in files if split not in SIZES]
    if unknown:
        raise UsageError(f"'{name}' has no split '{unknown[0]}'", f"it has: {', '.join(SIZES)}")
    written = [path for path in files.values() if not path.exists()]
    for split, path in files.items():
        if path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in EXAMPLES[name](split))
            with write_atomically(path) as file:
                file.writelines(line.encode() for line in lines)
    return written
