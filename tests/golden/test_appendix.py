"""The six-token example of every system: the rule gives the mask that the system's own definition gives, and where an
objective of ours can make the row, it does.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from unilmctl.objectives import (
    OBJECTIVES,
    Corruption,
    block_row,
    compensated_row,
    in_place_row,
    infilling_row,
    partial_row,
    permuted_row,
    windowed,
)
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Labels, Row, leaks, pad
from unilmctl.training.replaced import with_replacements
from unilmctl.visibility import FOREVER, Slots, visible

TEXT = "abcdef"
IDS = {token: index for index, token in enumerate(["pad", "C", "S", "M", *TEXT])}
NAMES = {index: token for token, index in IDS.items()}
SAME = {"P": "M", "A": "M", "Q": "M", "[M]": "M", "g2": "M", "g4": "M", "g5": "M", "sop": "C"}
ANSWERS = {"7": "S", "10": "C", "11": "S", "eop": "S", "eos": "S", "S": "S"} | {
    str(n + 1): c for n, c in enumerate(TEXT)
}


class Given(NamedTuple):
    name: str
    tokens: list[str]
    positions: list[str]
    segments: list[int]
    slots: Slots
    predicts: list[str]
    mask: list[str]


def numbers(words: list[str]) -> list[int]:
    return [FOREVER if word == "-" else int(word) for word in words]


def read() -> dict[str, Given]:
    examples = {}
    for block in (Path(__file__).parent / "appendix.txt").read_text(encoding="utf-8").split("\n\n")[1:]:
        lines = block.strip().splitlines()
        column = {line.split()[0]: line.split()[1:] for line in lines[:9]}
        slots = Slots(*(torch.tensor(numbers(column[name])) for name in ("document", "time", "until")))
        given = Given(
            name=" ".join(column["name"]),
            tokens=column["tokens"],
            positions=column["positions"],
            segments=numbers(column["segments"]),
            slots=slots,
            predicts=column["predicts"],
            mask=lines[9:],
        )
        examples[given.name] = given
    return examples


EXAMPLES = read()


def find(start: str) -> Given:
    (name,) = [name for name in EXAMPLES if name.startswith(start)]
    return EXAMPLES[name]


def test_every_system_is_there():
    assert len(EXAMPLES) == 34
    assert len({name.split(" — ")[0] for name in EXAMPLES}) == 22


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rule_gives_the_mask_of_the_definition(name: str):
    given = EXAMPLES[name]
    assert len(given.mask) == len(given.tokens)
    for query, (line, cells) in enumerate(zip(given.mask, visible(given.slots, given.slots).tolist(), strict=True)):
        drawn = "".join("#" if cell else "." for cell in cells)
        assert "".join(a if b != "?" else "?" for a, b in zip(drawn, line, strict=True)) == line, f"query {query}"


# ------------------------------------------------------------------------------------------------ rows of our own

Column = tuple[str, int, int, int, int, str]
"""Token, position, segment, time, until, and the token that is predicted ("" for none)."""


class Shape(NamedTuple):
    """A row as a set of columns, and who reads whom among them."""

    columns: list[Column]
    mask: list[list[bool]]


def shape(columns: list[Column], mask: list[list[bool]]) -> Shape:
    """The columns in an order of their own: the order in which they are given means nothing to the model."""
    order = sorted(range(len(columns)), key=lambda index: (columns[index][3], columns[index]))
    return Shape([columns[i] for i in order], [[mask[q][k] for k in order] for q in order])


def shape_of_example(given: Given, keep: slice = slice(None)) -> Shape:
    columns = [
        (SAME.get(token, token), int(position.split(",")[0]), segment, time, until, ANSWERS.get(answer, ""))
        for token, position, segment, time, until, answer in zip(
            given.tokens,
            given.positions,
            given.segments,
            given.slots.time.tolist(),
            given.slots.until.tolist(),
            given.predicts,
            strict=True,
        )
    ][keep]
    return shape(columns, [[cell == "#" for cell in line[keep]] for line in given.mask[keep]])


def shape_of_row(row: Row, given: Given) -> Shape:
    """Our row, without the [CLS] and [SEP] around the text where the example leaves them out."""
    labels = row.labels[LANGUAGE_MODEL]
    answers = dict(zip(labels.slots.tolist(), labels.targets.tolist(), strict=True))
    columns = [
        (NAMES[token], position, segment, time, until, NAMES[answers[slot]] if slot in answers else "")
        for slot, (token, position, segment, time, until) in enumerate(
            zip(
                row.ids.tolist(),
                row.positions.tolist(),
                row.segments.tolist(),
                row.time.tolist(),
                row.until.tolist(),
                strict=True,
            )
        )
    ]
    absent = {"C", "S"} - set(given.tokens)
    kept = [slot for slot, column in enumerate(columns) if not (column[0] in absent and row.time[slot] == 0)]
    slots = Slots(*(torch.from_numpy(c) for c in (row.document, row.time, row.until)))
    mask = visible(slots, slots).tolist()
    return shape([columns[slot] for slot in kept], [[mask[q][k] for k in kept] for q in kept])


def ids(text: str) -> np.ndarray:
    return np.array([IDS[token] for token in text], dtype=np.int64)


def frame(source_segment: int = 0, target_segment: int = 1, separator_in: str = "target") -> Frame:
    return Frame(
        pad=0,
        start=1,
        separator=2,
        mask=3,
        vocabulary=len(IDS),
        source_segment=source_segment,
        target_segment=target_segment,
        separator_in=separator_in,
    )


WORDS = {"a": 1, "b": 2, "c": 2, "C": 0, "S": 3, "d": 4, "e": 5, "f": 6}
ENTITIES = {"C": 0, "a": 1, "b": 2, "c": 3, "S": 4, "d": 5, "e": 5, "f": 6}


def units(table: dict[str, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Units by token; the last [SEP] is one too."""
    return lambda tokens: np.cumsum([0, *(table[NAMES[a]] != table[NAMES[b]] for a, b in pairwise(tokens))])


def masks(target: float, span: str = "token", table: dict[str, int] | None = None) -> Corruption:
    return Corruption(target=target, random=0, keep=0, span=span, units=None if table is None else units(table))


DRAWN = {
    "BERT — MLM": ("bidirectional", "abc", "def", frame(), masks(1 / 3)),
    "BERT-wwm": ("bidirectional", "abc", "def", frame(), masks(1 / 2, table=WORDS)),
    "RoBERTa": ("bidirectional", "abc", "def", frame(0, 0), masks(1 / 3)),
    "ALBERT": ("bidirectional", "abc", "def", frame(), masks(1 / 2, "ngram")),
    "SpanBERT": ("bidirectional", "abcdef", "", frame(), masks(1 / 2, "geometric")),
    "ERNIE 1.0": ("bidirectional", "abc", "def", frame(), masks(1 / 2, table=ENTITIES)),
    "ERNIE 2.0": ("bidirectional", "abc", "def", frame(), masks(1 / 2, table=ENTITIES)),
    "ELECTRA — generator": ("replaced", "abc", "def", frame(), masks(1 / 3)),
    "UniLM v1 — bidirectional": ("bidirectional", "abc", "def", frame(), masks(1 / 3)),
    "UniLM v1 — left-to-right": ("left-to-right", "abcdef", "", frame(2, 2), masks(1 / 3)),
    "UniLM v1 — right-to-left": ("right-to-left", "abcdef", "", frame(3, 3), masks(1 / 3)),
    "UniLM v1 — sequence": ("seq2seq", "abc", "def", frame(4, 5), masks(1 / 3)),
    "s2s-ft — mask_way=v2": ("pseudo", "abc", "def", frame(), masks(0.25)),
    "s2s-ft — mask_way=v1": ("masked", "abc", "def", frame(), masks(0.5)),
    "s2s-ft — mask_way=v0": ("causal", "abc", "def", frame(), masks(0)),
    "UniLMv2 — AE": ("partial", "abcdef", "", frame(), masks(1 / 2, "block")),
    "MASS — summarization": ("infilling-in-place", "abcdef", "", frame(), masks(1 / 2)),
    "XLNet": ("permuted", "abcdef", "", frame(), masks(1 / 2)),
    "MPNet": ("permuted-compensated", "abcdef", "", frame(), masks(1 / 2)),
    "GLM": ("infilling", "abcdef", "", frame(), masks(1 / 2, "block")),
    "ERNIE-GEN": ("pseudo", "ab", "Ccd", frame(0, 3), masks(0)),
}
"""What is given to an objective: one of its draws must be the example.

[P], [ATTN], queries and GLM's blanks are [MASK].
"""


def draw(name: str, objective: str | None = None) -> Row:
    """The draw of an objective that is the example."""
    usual, source, target, around, corruption = DRAWN[name]
    given = find(name)
    wanted = shape_of_example(given)
    example = Example(ids(source), ids(target))
    for seed in range(4000):
        row = OBJECTIVES[objective or usual](example, around, np.random.default_rng(seed), corruption=corruption)
        if shape_of_row(row, given) == wanted:
            return row
    pytest.fail(f"no draw of {objective or usual} is the example")


@pytest.mark.parametrize("name", DRAWN)
def test_an_objective_draws_the_row(name: str):
    assert leaks(draw(name)) == []


def test_the_boundaries_of_spanberts_span():
    row = draw("SpanBERT", "span-boundary")
    assert leaks(row) == []
    pairs = row.labels["boundary"]
    # b, c and d are predicted from a and e, the slots beside them, and from their places 0, 1, 2 in the span.
    assert [NAMES[token] for token in row.ids[[1, 5]].tolist()] == ["a", "e"]
    assert pairs.slots.tolist() == [1, 1, 1]
    assert pairs.aside is not None
    assert pairs.aside.tolist() == [[5, 0], [5, 1], [5, 2]]
    assert [NAMES[token] for token in pairs.targets.tolist()] == ["b", "c", "d"]


def test_what_electras_discriminator_reads_and_is_asked():
    row, given = draw("ELECTRA — generator"), find("ELECTRA — discriminator")
    batch = pad([row], pad_id=0)
    other = len(IDS)  # b'
    read = with_replacements(batch, torch.tensor([other, IDS["e"]]))  # what the generator draws: wrong, then right
    names = {**NAMES, other: "b'"}
    assert [names[token] for token in read.ids[0].tolist()[: len(row)]] == given.tokens
    (head,) = read.labels
    asked = read.labels[head]
    assert asked.slots.tolist() == list(range(len(given.tokens)))
    assert [("real", "fake")[target] for target in asked.targets.tolist()] == given.predicts
    for found, wanted in zip(
        (row.positions, row.time, row.until), (range(9), given.slots.time, given.slots.until), strict=True
    ):
        assert found.tolist() == list(map(int, wanted))
    assert row.segments.tolist() == given.segments


def running_text(window: int | None = None) -> Row:
    """The row of `next-token` without the [CLS] [SEP] before its text, counted from the first token on."""
    row = OBJECTIVES["next-token"](Example(ids(TEXT), ids("")), frame(0, 0), np.random.default_rng(0))
    row = row if window is None else windowed(row, window)
    slots, targets, answers, *_ = row.labels[LANGUAGE_MODEL]
    assert NAMES[int(targets[0])] == "a"  # [SEP] asks for the first token, which GPT has nothing to ask from
    return replace(
        row,
        ids=row.ids[2:],
        positions=row.positions[2:] - 2,
        segments=row.segments[2:],
        document=row.document[2:],
        time=row.time[2:] - 2,
        until=np.where(row.until == FOREVER, FOREVER, row.until - 2)[2:],
        shows=row.shows[2:],
        labels={LANGUAGE_MODEL: Labels(slots[1:] - 2, targets[1:], answers[1:])},
    )


def test_running_text_is_gpts():
    given = find("GPT-1/2")
    assert shape_of_row(running_text(), given) == shape_of_example(given)


def test_a_window_is_transformer_xls_memory_of_one_length():
    given, row = find("Transformer-XL — same_length"), running_text(3)
    assert [column.tolist() for column in (row.time, row.until)] == [
        given.slots.time.tolist(),
        given.slots.until.tolist(),
    ]


def test_the_row_of_bert4keras_without_its_last_column_which_predicts_nothing_and_is_read_by_nothing():
    given = find("bert4keras")
    assert given.predicts[-1] == "-"
    assert [line[-1] for line in given.mask[:-1]] == ["."] * 6
    row = OBJECTIVES["causal"](Example(ids("ab"), ids("cd")), frame(separator_in="source"), np.random.default_rng(0))
    assert shape_of_row(row, given) == shape_of_example(given, slice(0, -1))


def text_with_ends() -> np.ndarray:
    return ids("CabcdefS")


NONE = Corruption(random=0, keep=0)


def test_layouts_with_forced_choices():
    rows = {
        "UniLMv2 — AE": partial_row(
            text_with_ends(), [np.array([4, 5]), np.array([2])], frame(), np.random.default_rng(0), NONE
        ),
        "XLNet": permuted_row(text_with_ends(), np.array([4, 5, 2]), frame()),
        "MPNet": compensated_row(text_with_ends(), np.array([4, 6, 2]), frame(), np.random.default_rng(0), NONE),
        "GLM": infilling_row(text_with_ends(), [np.array([4, 5]), np.array([2])], frame()),
        "MASS — summarization": in_place_row(text_with_ends(), np.array([2, 3, 4]), frame()),
        "MASS — unsupNMT": in_place_row(text_with_ends(), np.array([2, 3, 4]), frame(), mask_until=1),
        "MASS — supNMT": in_place_row(text_with_ends(), np.array([2, 3, 4]), frame(), mask_until=0),
    }
    for name, row in rows.items():
        given = find(name)
        assert shape_of_row(row, given) == shape_of_example(given), name


def test_second_positions_of_glm():
    given = find("GLM")
    row = infilling_row(ids("Cabcdef"), [np.array([4, 5]), np.array([2])], frame())
    assert row.inner is not None
    assert [f"{outer},{inner}" for outer, inner in zip(row.positions, row.inner, strict=True)] == given.positions


def test_block_diffusion_with_everything_noisy():
    given = find("BD3-LM")
    row = block_row(ids(""), ids(TEXT), np.arange(6) // 2, np.ones(6, dtype=bool), frame(target_segment=0))
    wanted = shape_of_example(given)
    assert shape_of_row(row, given) == Shape(
        [("M" if column[0].startswith("~") else column[0], *column[1:]) for column in wanted.columns], wanted.mask
    )
