"""Passages: every token once, whole sentences where they fit, units, and other documents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.data.documents import TEXT_FIELDS, UNITS
from unilmctl.data.passages import Passages
from unilmctl.data.store import Store, StoreWriter
from unilmctl.errors import DataError
from unilmctl.rows import Passage

SEPARATOR = 99_999

Document = list[int]
"""Lengths of its sentences."""


def store(folder: Path, corpus: Sequence[Document], *, units: Sequence[Sequence[int]] | None = None) -> Store:
    """A store whose tokens are numbered through, with a new shard every few documents."""
    fields = TEXT_FIELDS if units is None else (*TEXT_FIELDS, UNITS)
    at = 0
    with StoreWriter(folder, fields, {}, shard_tokens=30) as writer:
        for index, lengths in enumerate(corpus):
            size = sum(lengths)
            more = {} if units is None else {UNITS: units[index]}
            writer.add(text=range(at, at + size), ends=np.cumsum(lengths), **more)  # type: ignore[arg-type]
            at += size
    return Store.open(folder)


def plain(passage: Passage) -> list[list[int]]:
    return [sentence.tolist() for sentence in passage.sentences]


def flat(passage: Passage) -> list[int]:
    return [token for sentence in plain(passage) for token in sentence]


def slow(corpus: Sequence[Document], length: int) -> list[list[list[int]]]:
    """The obvious way: sentence after sentence, a new passage when the next does not fit."""
    made: list[list[list[int]]] = []
    at = 0
    for lengths in corpus:
        made.append([])
        for size in lengths:
            for start in range(0, size, length):
                piece = list(range(at + start, at + min(start + length, size)))
                if sum(map(len, made[-1])) + len(piece) > length:
                    made.append([])
                made[-1].append(piece)
            at += size
    return made


corpora = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=20, deadline=None)
@given(corpus=corpora, length=st.integers(1, 20))
def test_passages_are_those_of_the_obvious_way(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[Document], length: int
) -> None:
    made = Passages(store(tmp_path_factory.mktemp("s") / "store", corpus), length)
    expected = slow(corpus, length)
    assert made.lengths().tolist() == [sum(map(len, one)) for one in expected]
    for index, one in enumerate(expected):
        assert flat(made[index]) == [token for sentence in one for token in sentence]
        if all(size <= length for size in corpus[made[index].document]):
            assert plain(made[index]) == one


@settings(max_examples=20, deadline=None)
@given(corpus=corpora, length=st.integers(2, 20), separated=st.booleans())
def test_merged_passages_hold_everything_once(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[Document], length: int, separated: bool
) -> None:
    kept = store(tmp_path_factory.mktemp("s") / "store", corpus)
    made = Passages(kept, length, merge=True, separator=SEPARATOR if separated else None)
    found = [flat(made[index]) for index in range(len(made))]
    assert list(map(len, found)) == made.lengths().tolist()
    assert max(map(len, found)) <= length
    assert [token for one in found for token in one if token != SEPARATOR] == list(range(sum(map(sum, corpus))))
    last_of = set(np.cumsum([sum(lengths) for lengths in corpus])[:-1] - 1)
    for one in found:
        for place, token in enumerate(one):
            if token == SEPARATOR:
                assert one[place - 1] in last_of
                assert one[place + 1] == one[place - 1] + 1
            elif separated and token in last_of and place + 1 < len(one):
                assert one[place + 1] == SEPARATOR
    assert len(made) <= len(Passages(kept, length))


def test_short_documents_share_a_passage(tmp_path: Path) -> None:
    made = Passages(store(tmp_path / "s", [[2], [1, 2], [3]]), 9, merge=True, separator=SEPARATOR)
    assert [plain(made[i]) for i in range(len(made))] == [[[0, 1], [SEPARATOR], [2], [3, 4]], [[5, 6, 7]]]
    assert made[0].document == 0
    assert made[0].units is None


def test_units_come_from_the_store_or_from_the_vocabulary(tmp_path: Path) -> None:
    corpus = [[3, 2], [2]]
    kept = store(tmp_path / "s", corpus, units=[[1, 0, 1, 1, 0], [0, 0]])
    passage = Passages(kept, 9)[0]
    assert passage.units is not None
    assert [numbers.tolist() for numbers in passage.units] == [[0, 0, 1], [2, 2]]
    cut = Passages(kept, 2)
    assert [flat(cut[i]) for i in range(3)] == [[0, 1], [2], [3, 4]]
    assert [[n.tolist() for n in cut[i].units or ()] for i in range(4)] == [[[0, 0]], [[0]], [[0, 0]], [[0, 0]]]
    continues = np.array([False, True, False, True, True, False, False])
    passage = Passages(store(tmp_path / "t", corpus), 9, continues=continues)[0]
    assert passage.units is not None
    assert [numbers.tolist() for numbers in passage.units] == [[0, 0, 1], [2, 2]]  # a sentence begins a word


@pytest.mark.parametrize("merge", [False, True])
def test_other_is_of_another_document(tmp_path: Path, merge: bool) -> None:
    corpus = [[4, 4, 4], [2], [3, 9, 3], [1], [8, 8], [2, 2], [5], [7, 1]]
    made = Passages(store(tmp_path / "s", corpus), 8, merge=merge)
    owner = np.repeat(np.arange(len(corpus)), [sum(lengths) for lengths in corpus])
    random = np.random.default_rng(0)
    for index in range(len(made)):
        own = {int(owner[token]) for token in flat(made[index])}
        seen = set()
        for _ in range(60):
            others = {int(owner[token]) for token in flat(made.other(index, random))}
            assert not own & others
            seen |= others
        assert len(seen) >= 2  # any of them


def test_one_document_has_no_other(tmp_path: Path) -> None:
    made = Passages(store(tmp_path / "s", [[4, 4]]), 4)
    with pytest.raises(DataError, match="no second document to take a sentence from"):
        made.other(0, np.random.default_rng(0))
    with pytest.raises(IndexError):
        made[2]
