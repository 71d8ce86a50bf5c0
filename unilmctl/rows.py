"""Rows: what a model reads, as plain integers, with the labels that are predicted in them.

A row is one sequence of tokens: ids, positions, segments, the three integers of the visibility rule, and labels that
name a head, a slot and a target. Objectives make rows from examples; `pack` puts several rows into one, `pad` puts
rows into a batch of tensors, and `leaks` proves that no label can see its answer.

Shapes: T tokens of a row, N labels, K numbers beside a label, B rows of a batch.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unilmctl.visibility import FOREVER, PADDING, Slots

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LANGUAGE_MODEL = "lm"
"""The head that predicts a vocabulary entry at a slot."""


class Example(NamedTuple):
    """One example as token ids, without special tokens.

    `source_units` and `target_units` number the unit (word, phrase, entity) of every token, equal numbers side by side;
    None where nobody knows.
    """

    source: Ints
    target: Ints
    source_units: Ints | None = None
    target_units: Ints | None = None


class Labelled(NamedTuple):
    """A text, or two, as token ids without special tokens, and what is to be said of it.

    `label` is the number of a class, or a number that is measured, [1]; of a text whose words are tagged, the number of
    the tag + 1 at each token that begins a word, else 0, [T]; of a question, the first and the last token of its answer
    in the second text, [2], or [0] where it has none.
    """

    source: Ints
    target: Ints
    label: Ints | Floats


class Passage(NamedTuple):
    """A stretch of one document's text: the token ids of its sentences, without special tokens.

    A sentence is a line of the document. `units` are numbered in each sentence as in `Example`; passages of one text
    have the same `document`.
    """

    sentences: tuple[Ints, ...]
    units: tuple[Ints, ...] | None
    document: int


class Labels(NamedTuple):
    """What one head predicts in a row: at `slots` [N] the `targets` [N] (floats where the head measures).

    `answers` [N] says which token of the example each label asks for, in the numbering of `Row.shows`; -1 where no
    token of the row can show the answer. `group` [N] is the entry of a mix that the label belongs to; None: 0 for all.
    `aside` [N, K] is what a head needs besides: its first column is another slot of the row, which moves with the row
    when rows are packed or padded; the others are plain numbers.
    """

    slots: Ints
    targets: Ints | Floats
    answers: Ints
    group: Ints | None = None
    aside: Ints | None = None


@dataclass(frozen=True)
class Row:
    """One sequence of T tokens; every array is [T].

    `shows` is the token of the example whose value a slot discloses (its index in the example, -1 for none): the leak
    check needs it, the model never sees it. `inner` is a second position (GLM: the place inside a span), None where an
    objective has one only.
    """

    ids: Ints
    positions: Ints
    segments: Ints
    document: Ints
    time: Ints
    until: Ints
    labels: dict[str, Labels]
    shows: Ints
    inner: Ints | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def in_group(self, group: int) -> "Row":
        """The row with all its labels in this group."""
        labels = {
            head: known._replace(group=np.full(len(known.slots), group, dtype=np.int64))
            for head, known in self.labels.items()
        }
        return replace(self, labels=labels)


class Targets(NamedTuple):
    """The labels of one head over a batch: flat slots (row * T + slot) [N] and targets [N].

    `group` [N] and `aside` [N, K] are those of `Labels`, the first column of `aside` being flat slots too.
    """

    slots: Tensor
    targets: Tensor
    group: Tensor | None = None
    aside: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length: tensors [B, T]. `inner` is None where no row has a second position."""

    ids: Tensor
    positions: Tensor
    segments: Tensor
    slots: Slots
    labels: dict[str, Targets]
    inner: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int((self.slots.document != PADDING).sum())


@dataclass(frozen=True)
class Frame:
    """What surrounds an example's tokens: special ids, segment ids, and length limits that count special tokens.

    `separator_in` matters to causal rows only: the [SEP] between source and target closes the "source" (bert4keras),
    or is the "target"'s start symbol (s2s-ft's position shift). Segment and visibility of that one token differ.
    """

    pad: int
    start: int
    separator: int
    mask: int
    vocabulary: int
    source_segment: int = 0
    target_segment: int = 1
    max_source: int = 464
    max_target: int = 48
    separator_in: Literal["source", "target"] = "target"
    truncate: Literal["tail", "head"] = "tail"

    def cut(self, source: Ints, *, special: int) -> Ints:
        """The source without the end of it (`truncate`) that does not fit beside so many special tokens."""
        extra = max(0, len(source) - (self.max_source - special))
        return source[extra:] if self.truncate == "head" else source[: len(source) - extra]

    def source(self, tokens: Ints) -> Ints:
        """[CLS] tokens [SEP], the tokens cut so that all fits `max_source`."""
        return np.concatenate(([self.start], self.cut(tokens, special=2), [self.separator])).astype(np.int64)

    def target(self, tokens: Ints) -> Ints:
        """Tokens [SEP], the tokens cut so that all fits `max_target`: a cut target ends in [SEP] too."""
        return np.concatenate((tokens[: self.max_target - 1], [self.separator])).astype(np.int64)


def pack(rows: list[Row]) -> Row:
    """Several rows as one without padding: documents are renumbered, so that rows stay blind to each other."""
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    documents, seen = [], 0
    for row in rows:
        documents.append(np.where(row.document == PADDING, PADDING, row.document + seen))
        seen += int(row.document.max(initial=PADDING)) + 1
    offsets = np.cumsum([0, *(int(row.shows.max(initial=-1)) + 1 for row in rows[:-1])])
    return Row(
        ids=np.concatenate([row.ids for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        segments=np.concatenate([row.segments for row in rows]),
        document=np.concatenate(documents),
        time=np.concatenate([row.time for row in rows]),
        until=np.concatenate([row.until for row in rows]),
        labels=_shifted_labels(rows, starts, offsets),
        shows=np.concatenate([np.where(r.shows < 0, -1, r.shows + o) for r, o in zip(rows, offsets, strict=True)]),
        inner=np.concatenate([_inner(row) for row in rows]) if _has_inner(rows) else None,
    )


def pack_into(rows: list[Row], longest: int) -> list[Row]:
    """The rows packed into few of at most `longest` tokens, which are of like length where they can be.

    A row that alone is longer stays alone. How many are needed is found by putting each row, the longest first, where
    there is room for it first; then each goes where there is most room, unless that makes a longer row.
    """
    ordered = sorted(rows, key=len, reverse=True)
    room: list[int] = []
    tight: list[list[Row]] = []
    for row in ordered:
        place = next((index for index, left in enumerate(room) if len(row) <= left), len(tight))
        if place == len(tight):
            tight.append([])
            room.append(longest)
        tight[place].append(row)
        room[place] -= len(row)
    sizes = [0] * len(tight)
    even: list[list[Row]] = [[] for _ in tight]
    for row in ordered:
        place = sizes.index(min(sizes))
        even[place].append(row)
        sizes[place] += len(row)
    return [pack(group) for group in (even if max(sizes, default=0) <= longest - min(room, default=0) else tight)]


def _has_inner(rows: list[Row]) -> bool:
    return any(row.inner is not None for row in rows)


def _inner(row: Row) -> Ints:
    return np.zeros(len(row), dtype=np.int64) if row.inner is None else row.inner


def _shifted_labels(rows: list[Row], starts: Ints, offsets: Ints) -> dict[str, Labels]:
    heads = dict.fromkeys(head for row in rows for head in row.labels)
    joined: dict[str, Labels] = {}
    for head in heads:
        joined[head] = _joined(
            [
                _moved(labels, int(start))._replace(
                    answers=np.where(labels.answers < 0, -1, labels.answers + offset),
                )
                for row, start, offset in zip(rows, starts, offsets, strict=True)
                if (labels := row.labels.get(head)) is not None
            ]
        )
    return joined


def _moved(labels: Labels, start: int) -> Labels:
    """The labels of a row that begins at slot `start` of something larger."""
    aside = labels.aside
    if aside is not None:
        aside = aside.copy()
        aside[:, 0] += start
    return labels._replace(slots=labels.slots + start, aside=aside)


def _joined(parts: list[Labels]) -> Labels:
    """The labels of one head of several rows. Either all of them have something aside or none has."""
    groups = [np.zeros(len(part.slots), dtype=np.int64) if part.group is None else part.group for part in parts]
    asides = [part.aside for part in parts if part.aside is not None]
    return Labels(
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.answers for part in parts]),
        None if all(part.group is None for part in parts) else np.concatenate(groups),
        np.concatenate(asides) if len(asides) == len(parts) else None,
    )


def pad(rows: list[Row], *, pad_id: int, length: int | None = None) -> Batch:
    """A batch of the rows, padded on the right to the longest (or to `length`)."""
    width = max(len(row) for row in rows) if length is None else length

    def table(columns: list[Ints], filler: int) -> Tensor:
        out = np.full((len(rows), width), filler, dtype=np.int64)
        for index, column in enumerate(columns):
            out[index, : len(column)] = column
        return torch.from_numpy(out)

    slots = Slots(
        table([row.document for row in rows], PADDING),
        table([row.time for row in rows], 0),
        table([row.until for row in rows], FOREVER),
    )
    heads = dict.fromkeys(head for row in rows for head in row.labels)
    labels = {head: _targets(rows, head, width) for head in heads}
    return Batch(
        ids=table([row.ids for row in rows], pad_id),
        positions=table([row.positions for row in rows], 0),
        segments=table([row.segments for row in rows], 0),
        slots=slots,
        labels=labels,
        inner=table([_inner(row) for row in rows], 0) if _has_inner(rows) else None,
    )


def _targets(rows: list[Row], head: str, width: int) -> Targets:
    labels = _joined([_moved(row.labels[head], index * width) for index, row in enumerate(rows) if head in row.labels])
    return Targets(
        torch.from_numpy(labels.slots),
        torch.from_numpy(labels.targets),
        None if labels.group is None else torch.from_numpy(labels.group),
        None if labels.aside is None else torch.from_numpy(labels.aside),
    )


class Leak(NamedTuple):
    """A label at `slot` that can see its answer at slot `shown_at`."""

    head: str
    slot: int
    shown_at: int


def leaks(row: Row) -> list[Leak]:
    """Labels whose answer is disclosed at their own time or earlier, in O(T + N).

    Sufficient for soundness at any depth, because information never flows to a smaller time. A labelled slot may hold
    its own answer (BERT's "keep" corruption); any other slot that shows it must have a larger time. A label that reads
    a second slot (`aside`) is checked there too.
    """
    first = _earliest_disclosures(row)
    found = []
    for head, labels in row.labels.items():
        for slot, answer in _asking(labels):
            for shown_at in first.get((int(row.document[slot]), answer), ()):
                if shown_at != slot and row.time[shown_at] <= row.time[slot]:
                    found.append(Leak(head, slot, shown_at))
                    break
    return found


def _asking(labels: Labels) -> list[tuple[int, int]]:
    """Every slot that a label reads, and the answer that it must not see there."""
    slots = [labels.slots] if labels.aside is None else [labels.slots, labels.aside[:, 0]]
    return [pair for part in slots for pair in zip(part.tolist(), labels.answers.tolist(), strict=True)]


def _earliest_disclosures(row: Row) -> dict[tuple[int, int], list[int]]:
    """Per document and answer the two earliest slots that show it: one of them may be the label's own."""
    first: dict[tuple[int, int], list[int]] = {}
    shown = np.flatnonzero(row.shows >= 0)
    for slot in shown[np.argsort(row.time[shown], kind="stable")].tolist():
        slots = first.setdefault((int(row.document[slot]), int(row.shows[slot])), [])
        if len(slots) < 2:
            slots.append(slot)
    return first
