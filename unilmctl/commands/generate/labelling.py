"""What heads say instead of text: a label, tags, an answer or a vector for every line, in order."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unilmctl import console
from unilmctl.commands.generate.writing import Lines, report
from unilmctl.data.parsing import Columns
from unilmctl.data.reading import BadLine
from unilmctl.errors import UsageError
from unilmctl.generation import (
    GenerateOptions,
    Item,
    Labeller,
    Said,
    Tally,
    open_lines,
    open_model,
    read_records,
    task_of,
    usable,
    windows,
)
from unilmctl.model.devices import device_named
from unilmctl.weights import ModelCard, read_card

FOR_LABELS = ("dtype", "device", "batch_tokens")
"""Options that have to do with labels."""


def chosen(folder: Path, task: str | None, objective: str | None) -> str | None:
    """The name of the head that answers; None: the model writes. UsageError for a task that it does not have."""
    card = read_card(folder) or ModelCard()
    if task == "generate" or (task is None and (objective is not None or card.writes)):
        return None
    name, known = task_of(card, task)
    return None if known["task"] == "generate" else name


def refuse(name: str, stray: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """UsageError for what only writing has a use for."""
    wrong = [flag for flag, value in stray.items() if value]
    wrong += [f"--{option.replace('_', '-')}" for option in options if option not in FOR_LABELS]
    if wrong:
        raise UsageError(f"{wrong[0]} is for writing, the task '{name}' gives labels", "--task generate writes text")


def run(
    folder: Path,
    name: str,
    lines: Lines,
    *,
    options: Mapping[str, Any],
) -> Tally:
    """Says of every line of `lines` what the head `name` says; as JSON all that it knows of it."""
    settled = GenerateOptions().updated(dict(options))
    dtype = "float32" if settled.dtype == "auto" else settled.dtype
    opened = open_model(folder).packed(dtype, device_named(settled.device))
    labeller = Labeller(opened, name, batch_tokens=settled.batch_tokens)
    columns = Columns(labeller.task["source"], labeller.task["second"] or Columns().target)
    tally = Tally()
    records = read_records(lines.source, format=lines.input_format, on_bad_line=lines.on_bad_line, columns=columns)
    line = partial(_json, labeller.name) if lines.as_json else _plain
    with open_lines(lines.output) as write, console.progress("generate") as advance:
        for window in windows(records):
            write([line(item, one) for item, one in _answers(window, labeller, tally)])
            advance(len(window))
    report(tally, labeller.longest)
    return tally


def _answers(window: list[Item], labeller: Labeller, tally: Tally) -> Iterator[tuple[Item, Said | None]]:
    """What is said of each line of a window, in order; None of one without text."""
    found = [usable(item, tally) for item in window]
    tally.records += len(window)
    pair = labeller.task["second"] is not None
    records = [record for record in found if record is not None and record.source]
    said = iter(labeller.say([(record.source, record.target if pair else None) for record in records]))
    for item, record in zip(window, found, strict=True):
        one = next(said) if record is not None and record.source else None
        tally.cut += one is not None and one.cut
        yield item, one


def _plain(item: Item, said: Said | None) -> str:
    return "" if said is None else said.text


def _json(name: str, item: Item, said: Said | None) -> str:
    record = item.replacement if isinstance(item, BadLine) else item
    fields: dict[str, Any] = {"id": record and record.id, "task": name, **({} if said is None else said.fields)}
    if isinstance(item, BadLine):
        fields["error"] = item.message
    return json.dumps(fields, ensure_ascii=False)
