"""Lines with gaps in, the same lines filled out, in order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl import console
from unilmctl.commands.generate.writing import Lines, report
from unilmctl.data.parsing import Record
from unilmctl.data.reading import BadLine
from unilmctl.errors import DataError, UsageError
from unilmctl.generation import (
    Filler,
    Filling,
    Gapped,
    GenerateOptions,
    Item,
    Tally,
    gapped,
    open_lines,
    open_model,
    read_records,
    usable,
    windows,
)
from unilmctl.model.devices import device_named
from unilmctl.tokens import Tokenizer

FOR_FILLING = (
    "search", "beam", "nbest", "beam_groups", "diversity", "length_penalty", "length_normalization",
    "max_length", "forbid", "temperature", "top_k", "top_p", "min_p",
    "typical_p", "seed", "dtype", "device", "batch_tokens",
)  # fmt: skip
"""Options that have to do with gaps."""

SEARCHES = ("beam", "greedy", "sample")


def refuse(stray: Mapping[str, Any]) -> None:
    """UsageError for what only writing or labels have a use for."""
    wrong = next((flag for flag, value in stray.items() if value), None)
    if wrong is not None:
        raise UsageError(f"{wrong} has no meaning for gaps", "leave it out, or --fill")


def run(
    folder: Path,
    lines: Lines,
    *,
    objective: str | None,
    order: str | None,
    options: Mapping[str, Any],
) -> Tally:
    """Fills the gaps of every line of `lines`; a line without one is given back as it is, and counted.

    With `nbest` n, text output has n lines for every line of input. UsageError for options that gaps have no use for.
    """
    settled = _settled(options)
    opened = open_model(folder)
    if not opened.card.head_trained:
        console.warn(f"{folder}: the language-model head was never trained; what follows is noise")
    dtype = "float32" if settled.dtype == "auto" else settled.dtype
    opened = opened.packed(dtype, device_named(settled.device))
    filler = Filler(opened, settled, objective=objective, order=order)
    tally, keys = Counts(), count()
    records = read_records(lines.source, format=lines.input_format, on_bad_line=lines.on_bad_line)
    show = partial(_json if lines.as_json else _plain, tokenizer=opened.tokenizer, nbest=settled.nbest)
    with open_lines(lines.output) as write, console.progress("fill") as advance:
        for window in windows(records):
            numbered = [(next(keys), item) for item in window]
            write([line for one in _answers(numbered, filler, tally, lines.on_bad_line) for line in show(one)])
            advance(len(window))
    report(tally, 0)
    if tally.whole:
        mark = opened.tokenizer.tokens([opened.tokenizer.roles.mask])[0]
        console.warn(f"{tally.whole:,} of {tally.records:,} lines have no gap: a gap is written {mark}")
    return tally


@dataclass
class Counts(Tally):
    """`whole` lines have text and no gap."""

    whole: int = 0


class Answer(NamedTuple):
    """A line, as it can be used, and ways to fill its gaps: none where it has none, or cannot be used."""

    item: Item
    line: Gapped | None
    fillings: list[Filling]


def _settled(given: Mapping[str, Any]) -> GenerateOptions:
    """The options of this run alone: what a model folder or a recipe says is about writing after a source."""
    stray = next((name for name in given if name not in FOR_FILLING), None)
    if stray is not None:
        raise UsageError(f"--{stray.replace('_', '-')} has no meaning for gaps", "see --fill in docs/decoding.md")
    settled = GenerateOptions().updated(dict(given))
    settled.refuse_strangers(given)
    if settled.search not in SEARCHES:
        raise UsageError(f"{settled.search} search does not fill gaps", f"--search {', '.join(SEARCHES)}")
    return settled


def _answers(numbered: list[tuple[int, Item]], filler: Filler, tally: Counts, policy: str) -> list[Answer]:
    """What there is to say of each line of a window, in order."""
    tally.records += len(numbered)
    found = [(item, usable(item, tally)) for _, item in numbered]
    texts = [record.source for _, record in found if record is not None]
    lines = iter(gapped(texts, filler.tokenizer))
    answers = [_checked(item, record, record and next(lines), filler, tally, policy) for item, record in found]
    asked = [(key, one.line) for (key, _), one in zip(numbered, answers, strict=True) if one.line and one.line.gaps]
    fillings = iter(filler.fill([line for _, line in asked], [key for key, _ in asked]) if asked else ())
    tally.whole += sum(one.line is not None and len(one.line.ids) > 0 and not one.line.gaps for one in answers)
    return [one._replace(fillings=next(fillings)) if one.line and one.line.gaps else one for one in answers]


def _checked(
    item: Item, record: Record | None, line: Gapped | None, filler: Filler, tally: Counts, policy: str
) -> Answer:
    """The line if it is one to be filled; a DataError, or a bad line, for one that the model cannot read."""
    try:
        if line is not None and line.gaps:
            filler.check(line)
    except DataError as error:
        assert record is not None, "it was read"
        message = f"{record.where}: {error.message}"
        if policy == "fail":
            raise DataError(message, error.hint) from error
        tally.bad += isinstance(item, Record)
        return Answer(BadLine(record.where, message, None), None, [])
    return Answer(item, line, [])


def _plain(answer: Answer, tokenizer: Tokenizer, nbest: int) -> list[str]:
    if answer.line is None:
        texts = [""]
    elif not answer.fillings:
        texts = [answer.line.filled([], tokenizer)[0]]
    else:
        texts = [answer.line.filled([gap.ids for gap in one.gaps], tokenizer)[0] for one in answer.fillings]
    return [text.replace("\n", " ") for text in texts] + [""] * (nbest - len(texts))


def _json(answer: Answer, tokenizer: Tokenizer, nbest: int) -> list[str]:
    del nbest
    item, line = answer.item, answer.line
    record = item if isinstance(item, Record) else item.replacement
    fields: dict[str, Any] = {"id": record and record.id}
    if line is not None:
        fillings = answer.fillings or [Filling([], 0.0)]
        fields["hypotheses"] = [_hypothesis(line, filling, tokenizer) for filling in fillings]
    if isinstance(item, BadLine):
        fields["error"] = item.message
    return [json.dumps(fields, ensure_ascii=False)]


def _hypothesis(line: Gapped, filling: Filling, tokenizer: Tokenizer) -> dict[str, Any]:
    """The line filled, and what stands in each gap with the log-probability of every token."""
    text, gaps = line.filled([gap.ids for gap in filling.gaps], tokenizer)
    shown = [
        {"text": text, "tokens": tokenizer.tokens(gap.ids), "token_scores": gap.token_scores}
        for text, gap in zip(gaps, filling.gaps, strict=True)
    ]
    return {"text": text, "score": filling.score, "gaps": shown}
