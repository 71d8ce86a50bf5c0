"""Rows that a recipe describes: which tokens stand in them, when each is written, and what is predicted.

    choose: {field: text, rate: 0.15, span: token}        # only if a part speaks of `chosen` or `others`
    parts:
      - {take: text, of: others, time: 0}                 # tokens as they are
      - {mask: text, of: chosen, time: 0, predict: this}  # [MASK]s in their places

A part is a set of tokens of one field: of `text` ([CLS] source target [SEP]), or of `source` ([CLS] source [SEP]) and
`target` (target [SEP]), which follow each other. It stands at the positions of its tokens. `take` writes the tokens,
`mask` [MASK]s, `corrupt` 80 % [MASK]s, 10 % random tokens and 10 % the tokens. `predict: this` asks each for the token
of its place, `predict: next` for the one after. A row that shows a label its own answer is refused.

`time` and `until` are formulas over i (the place in the field, from 0), n (the field's length) and, of chosen tokens, k
(the rank of their span in the order drawn) and m (how many spans there are).

Shapes: T tokens of the text, C columns of a part.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np
import torch

from unilmctl.errors import RecipeError
from unilmctl.objectives.cloze import one_segment, two_segments
from unilmctl.objectives.corruption import DEFAULT, LENGTHS, Corruption, Text, choose, corrupt
from unilmctl.objectives.formula import Formula, read_formula
from unilmctl.objectives.layout import Columns, assemble, joined, ranks
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row, leaks
from unilmctl.visibility import FOREVER, Slots, visible

Kind = Literal["take", "mask", "corrupt"]

KINDS: tuple[Kind, ...] = ("take", "mask", "corrupt")
FIELDS = ("text", "source", "target")
CHOICES = ("all", "chosen", "others", "last", "rest")
"""Which tokens of a field a part holds; `rest` are all but the last."""

PREDICTS = {None: None, False: None, True: 0, "this": 0, "next": 1}
"""How far ahead of its own place each token predicts."""


@dataclass(frozen=True)
class Part:
    """Some columns of a row; `label` is how messages call the part, `predicts` how far ahead each token predicts."""

    label: str
    kind: Kind
    field: str
    of: str
    time: Formula
    until: Formula | None
    segment: int | None
    predicts: int | None


class _Laid:
    """An example as the places [T] of one text: where its fields lie, and the rank of each chosen token's span."""

    def __init__(self, text: Text, spans: list[Ints], whole: bool) -> None:
        size = len(text.tokens)
        self.text = text
        self.fields = {"text": (0, size)} if whole else {"source": (0, text.first), "target": (text.first, size)}
        self.rank = np.full(size, -1, dtype=np.int64)
        self.rank[joined(spans)] = ranks(spans)
        self.spans = len(spans)

    def places(self, part: Part) -> Ints:
        """The places of a part's tokens [C], from left to right."""
        start, end = self.fields[part.field]
        place = np.arange(start, end)
        chosen = self.rank[start:end] >= 0
        last = place == end - 1
        kept = {"all": place >= 0, "chosen": chosen, "others": ~chosen, "last": last, "rest": ~last}
        return np.flatnonzero(kept[part.of]) + start

    def values(self, part: Part, place: Ints) -> dict[str, Ints]:
        """What the names of a formula stand for at these places, each [C]."""
        start, end = self.fields[part.field]
        length, spans = np.full_like(place, end - start), np.full_like(place, self.spans)
        return {"i": place - start, "n": length, "k": self.rank[place], "m": spans}


@dataclass(frozen=True)
class CustomRow:
    """An objective that a recipe describes, at a `place` of it for messages.

    Calling it makes the row of an example, as with any other objective.
    """

    name: str
    parts: tuple[Part, ...]
    chosen_from: str | None
    corruption: Corruption
    place: str | None = None

    def __call__(self, example: Example, frame: Frame, random: np.random.Generator) -> Row:
        """RecipeError, naming the parts, where a time makes no sense or a label is shown its answer."""
        with _refusing(self.name, self.place):
            return self.row(example, frame, random)

    def row(self, example: Example, frame: Frame, random: np.random.Generator) -> Row:
        """The same with ValueErrors."""
        laid = self._laid(example, frame, random)
        groups = [self._columns(part, laid, frame, random) for part in self.parts]
        row = assemble(laid.text.tokens, groups)
        owners = np.repeat(np.arange(len(groups)), [len(group.ids) for group in groups])
        row = replace(row, labels={LANGUAGE_MODEL: self._labels(row, owners, laid.text.tokens)})
        self._refuse_leaks(row, owners)
        return row

    def lengths(self, source_lengths: Ints, target_lengths: Ints, frame: Frame) -> Ints:
        """Tokens in the row of each example, both [N] without special tokens; of chosen tokens, about so many."""
        source = np.minimum(source_lengths + 2, frame.max_source)
        target = np.where(target_lengths > 0, np.minimum(target_lengths + 1, frame.max_target), 0)
        text = np.minimum(source_lengths + target_lengths + 2, frame.max_source)
        sizes = {"text": text, "source": source, "target": target}
        counts = [_count(sizes[part.field], part.of, self.corruption.target or 0.0) for part in self.parts]
        return np.asarray(np.stack(counts).sum(0))

    def _laid(self, example: Example, frame: Frame, random: np.random.Generator) -> _Laid:
        whole = self.parts[0].field == "text"
        text = one_segment(example, frame) if whole else two_segments(example, frame)
        if self.chosen_from is None:
            return _Laid(text, [], whole)
        place = np.arange(len(text.tokens))
        if self.chosen_from == "source":
            text.free[place >= text.first] = False
        if self.chosen_from == "target":
            text.free[place < text.first] = False
            text.free[text.first :][-1:] = True  # the end, so that the model learns to stop
        return _Laid(text, choose(self.name, text, random, self.corruption), whole)

    def _columns(self, part: Part, laid: _Laid, frame: Frame, random: np.random.Generator) -> Columns:
        place = laid.places(part)
        tokens, values = laid.text.tokens[place], laid.values(part, place)
        if part.kind == "mask":
            tokens = np.full_like(tokens, frame.mask)
        if part.kind == "corrupt":
            tokens = corrupt(tokens, frame, random, self.corruption, values["k"] if part.of == "chosen" else None)
        time = part.time(values)
        until = np.full_like(time, FOREVER) if part.until is None else part.until(values)
        if (time < 0).any() or (until < time).any():
            slot = int(np.flatnonzero((time < 0) | (until < time))[0])
            raise ValueError(f"{part.label}: written at {time[slot]}, readable until {until[slot]}; 0 <= time <= until")
        own = frame.target_segment if part.field == "target" else frame.source_segment
        return Columns(tokens, place, time, until, own if part.segment is None else part.segment)

    def _labels(self, row: Row, owners: Ints, tokens: Ints) -> Labels:
        ahead = np.array([-1 if part.predicts is None else part.predicts for part in self.parts])[owners]
        slots = np.flatnonzero((ahead >= 0) & (row.positions + ahead < len(tokens)))
        answers = (row.positions + ahead)[slots]
        return Labels(slots, tokens[answers], answers)

    def _refuse_leaks(self, row: Row, owners: Ints) -> None:
        for leak in leaks(row):
            reader, shown = (self.parts[owners[slot]].label for slot in (leak.slot, leak.shown_at))
            raise ValueError(
                f"{reader}: what it predicts at time {row.time[leak.slot]} stands in {shown} "
                f"from time {row.time[leak.shown_at]} on; it must be written later than it is predicted"
            )


def _count(size: Ints, of: str, share: float) -> Ints:
    chosen = np.maximum(1, np.round(share * (size - 2))).astype(np.int64)
    ends = np.minimum(size, 1)
    return {"all": size, "chosen": chosen, "others": size - chosen, "last": ends, "rest": size - ends}[of]


# ---------------------------------------------------------------------------------------------------------- reading


def parse_row(
    given: Mapping[str, object], name: str = "row", corruption: Corruption = DEFAULT, *, place: str | None = None
) -> CustomRow:
    """The objective that a recipe's mapping describes, with `choose` and `parts` as above.

    `corruption` says what `corrupt` does and what units spans have; its rate and span precede those of `choose`.
    RecipeError says what is wrong, and in which part, after `place`, the row's in a file.
    """
    with _refusing(name, place):
        return replace(_row(given, name, corruption), place=place)


@contextmanager
def _refusing(name: str, place: str | None) -> Iterator[None]:
    """Turns a ValueError into one that the user meets."""
    try:
        yield
    except ValueError as error:
        where = f"row '{name}'" if place is None else f"{place}: row '{name}'"
        raise RecipeError(f"{where}: {error}", "docs/masks.md shows how a row is described") from None


def _row(given: Mapping[str, object], name: str, corruption: Corruption) -> CustomRow:
    _known(given, ("choose", "parts"), "a row")
    listed = given.get("parts")
    if not isinstance(listed, list) or not listed:
        raise ValueError("'parts' must list at least one part")
    parts = tuple(_part(number, part) for number, part in enumerate(listed, start=1))
    chosen_from, corruption = _choose(given.get("choose"), parts, corruption)
    fields = {part.field for part in parts} | ({chosen_from} if chosen_from else set())
    if "text" in fields and len(fields) > 1:
        raise ValueError("'text' is source and target in one: it does not go with 'source' or 'target'")
    if all(part.predicts is None for part in parts):
        raise ValueError("no part predicts anything: add 'predict: this' or 'predict: next'")
    row = CustomRow(name, parts, chosen_from, corruption)
    _try(row)
    return row


def _part(number: int, given: object) -> Part:
    if not isinstance(given, Mapping):
        raise ValueError(f"part {number} must be a mapping like {{take: text, time: 0}}")
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        raise ValueError(f"part {number} needs one of {', '.join(KINDS)}")
    (kind,) = kinds
    label = f"part {number} ({kind} {given[kind]})"
    _known(given, (kind, "of", "time", "until", "segment", "predict"), label)
    field, of = _one_of(given[kind], FIELDS, label, kind), _one_of(given.get("of", "all"), CHOICES, label, "of")
    names = ("i", "n", "k", "m") if of == "chosen" else ("i", "n", "m")
    segment, predict = given.get("segment"), given.get("predict")
    if segment is not None and (type(segment) is not int or segment < 0):
        raise ValueError(f"{label}: 'segment' is a number from 0 on, not {segment!r}")
    if not isinstance(predict, str | bool | None) or predict not in PREDICTS:
        raise ValueError(f"{label}: 'predict' is 'this' or 'next', not {predict!r}")
    if "time" not in given:
        raise ValueError(f"{label} needs a 'time'")
    time = _formula(given["time"], names, label, "time")
    until = _formula(given["until"], names, label, "until") if "until" in given else None
    return Part(label, kind, field, of, time, until, segment, PREDICTS[predict])


def _formula(given: object, names: tuple[str, ...], label: str, key: str) -> Formula:
    if type(given) not in (int, str):
        raise ValueError(f"{label}: '{key}' is a formula like 2*i+1, not {given!r}")
    try:
        return read_formula(str(given), names)
    except ValueError as error:
        raise ValueError(f"{label}: '{key}': {error}") from None


def _choose(given: object, parts: tuple[Part, ...], corruption: Corruption) -> tuple[str | None, Corruption]:
    needed = [part for part in parts if part.of in ("chosen", "others")]
    if given is None:
        if needed:
            raise ValueError(f"{needed[0].label}: 'of: {needed[0].of}' needs a 'choose' beside 'parts'")
        return None, corruption
    if not isinstance(given, Mapping):
        raise ValueError("'choose' must be a mapping like {field: text, rate: 0.15}")
    _known(given, ("field", "rate", "span"), "'choose'")
    share, span = given.get("rate", 0.15), given.get("span", "token")
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise ValueError(f"'choose': 'rate' is a share between 0 and 1, not {share!r}")
    lengths = next((known for known in (*LENGTHS, "suffix") if known == span), None)
    if lengths is None:
        raise ValueError(f"'choose': 'span' is one of {', '.join((*LENGTHS, 'suffix'))}, not {span!r}")
    target = share if corruption.target is None else corruption.target
    return (
        _one_of(given.get("field"), FIELDS, "'choose'", "field"),
        replace(corruption, target=target, span=corruption.span or lengths),
    )


def _known(given: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in keys:
            close = get_close_matches(str(key), keys, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(keys)}"
            raise ValueError(f"{where}: there is no '{key}'; {hint}")


def _one_of(given: object, known: tuple[str, ...], where: str, key: str) -> str:
    if given not in known:
        raise ValueError(f"{where}: '{key}' is one of {', '.join(known)}, not {given!r}")
    return str(given)


def _try(row: CustomRow) -> None:
    """Makes rows of small examples whose corrupted tokens are all kept: the worst that a draw could show."""
    frame = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=99)
    kept = replace(row, corruption=replace(row.corruption, keep=1.0, random=0.0, units=None))
    for seed, (source, target) in enumerate([(5, 4), (1, 1), (3, 6), (7, 2), (6, 0)]):
        example = Example(np.arange(10, 10 + source), np.arange(30, 30 + target))
        made = kept.row(example, frame, np.random.default_rng(seed))
        slots = Slots(*(torch.from_numpy(column) for column in (made.document, made.time, made.until)))
        blind = torch.nonzero(~visible(slots, slots).any(-1)).flatten().tolist()
        if blind:
            raise ValueError(f"at time {made.time[blind[0]]} a token reads nothing, not even itself")
