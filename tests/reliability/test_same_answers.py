"""The same line gets the same answer, in float32, whatever is decoded beside it and whoever decodes; of ten thousand
lines that are drawn by chance two may not, where a draw falls between two tokens as near as float32 can tell.

Several hundred lines (ten thousand in the long cases) of one to thirty tokens are answered with small and large
batches, in another order, by several threads and processes, and with memory for only few lines at a time.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unilmctl.commands import generate
from unilmctl.decoding import Decoder
from unilmctl.rows import Ints

MODEL = Path(__file__).parent.parent / "golden" / "generate" / "model"
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"search": "greedy"},
    "drafts": {"search": "greedy", "drafts": 3},
    "beam": {"search": "beam", "beam": 3, "no_repeat_ngram": 2},
    "sample": {"search": "sample", "top_p": 0.9, "seed": 5},
}
WAYS: dict[str, dict[str, Any]] = {
    "one by one": {"batch_tokens": 1, "max_length": 4},  # a step of one line costs as much as one of a thousand
    "few": {"batch_tokens": 300},
    "many": {"batch_tokens": 100_000},
    "two workers": {"workers": 2},
}
LONGEST = 8
"""Tokens of an answer at most."""

Known = dict[tuple[str, int, int], list[str]]
"""Answers by search, number of lines and tokens of an answer."""

SIZES = [300, pytest.param(10_000, marks=pytest.mark.reliability)]


def short(*rare: str) -> list[Any]:
    """Searches, those that are `rare` in the long cases alone."""
    return [pytest.param(name, marks=[pytest.mark.reliability] if name in rare else []) for name in SEARCHES]


def lines(count: int) -> list[str]:
    words = [word for word in (MODEL / "vocab.txt").read_text().split("\n") if word.isalpha()]
    random = np.random.default_rng(8)
    return [" ".join(random.choice(words, int(random.integers(1, 30)))) for _ in range(count)]


def answers(texts: list[str], folder: Path, **options: Any) -> list[str]:
    source, output = folder / "in.txt", folder / "out.txt"
    source.write_text("".join(f"{text}\n" for text in texts))
    wanted = {"dtype": "float32", "device": "cpu", "max_length": LONGEST, "workers": 1, **options}
    generate.run(source=str(source), model=MODEL, output=output, options=wanted)
    return output.read_text().split("\n")[:-1]


@pytest.fixture(scope="module")
def expected() -> Known:
    """Answers that were given already."""
    return {}


def plain(expected: Known, search: str, count: int, folder: Path, longest: int = LONGEST) -> list[str]:
    key = (search, count, longest)
    if key not in expected:
        expected[key] = answers(lines(count), folder, **SEARCHES[search], max_length=longest)
    return expected[key]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.reliability] if way == "one by one" else []) for way in WAYS]
)
@pytest.mark.parametrize("search", short("drafts", "sample"))
def test_batches_and_workers_change_nothing(search: str, way: str, count: int, tmp_path: Path, expected: Known) -> None:
    wanted = plain(expected, search, count, tmp_path, WAYS[way].get("max_length", LONGEST))
    assert len(wanted) == count
    found = answers(lines(count), tmp_path, **SEARCHES[search], **WAYS[way])
    assert len(found) == count
    different = [place for place in range(count) if found[place] != wanted[place]]
    assert len(different) <= (count // 5000 if search == "sample" else 0), different


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("search", ["greedy", "drafts", "beam"])
def test_the_order_changes_nothing(search: str, count: int, tmp_path: Path, expected: Known) -> None:
    wanted = plain(expected, search, count, tmp_path)
    assert answers(lines(count)[::-1], tmp_path, **SEARCHES[search]) == wanted[::-1]


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("search", short("greedy", "drafts", "sample"))
def test_threads_change_nothing(search: str, threads: int, tmp_path: Path, expected: Known) -> None:
    wanted, before = plain(expected, search, 300, tmp_path), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert answers(lines(300), tmp_path, **SEARCHES[search]) == wanted
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("most", [pytest.param(1, marks=pytest.mark.reliability), 7, 40])
@pytest.mark.parametrize("search", short("drafts", "sample"))
def test_memory_for_few_lines_changes_nothing(
    search: str,
    most: int,
    tmp_path: Path,
    expected: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, start, short = plain(expected, search, 300, tmp_path), Decoder.start, []

    def started(self: Decoder, sources: list[Ints]) -> Any:
        if len(sources) > most:
            short.append(len(sources))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return start(self, sources)

    monkeypatch.setattr(Decoder, "start", started)
    assert answers(lines(300), tmp_path, **SEARCHES[search]) == wanted
    assert short or search == "drafts"
