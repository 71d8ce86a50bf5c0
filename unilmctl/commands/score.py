"""`unilmctl score`: log-probabilities of given targets, one line out for every line in."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from unilmctl import console
from unilmctl.data.parsing import Record
from unilmctl.data.reading import read
from unilmctl.errors import DataError, UsageError
from unilmctl.generation import (
    GenerateOptions,
    Item,
    Opened,
    Scored,
    Scorer,
    Tally,
    open_lines,
    open_model,
    text_ids,
    usable,
    windows,
)
from unilmctl.model.devices import device_named
from unilmctl.rows import Row
from unilmctl.runs import latest_run, model_folder
from unilmctl.search import Scoring


def run(
    *,
    source: str = "-",
    model: Path | None = None,
    output: Path | None = None,
    as_json: bool = False,
    input_format: str = "auto",
    on_bad_line: str = "fail",
    objective: str | None = None,
    memory: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tally:
    """Scores the target of every record of `source`, a file of JSON lines or TSV ("-": standard input).

    A record without a target is scored by its first reference. `options` are those of `GenerateOptions` that were
    given: number format, device, batch size, and the length normalisation; the others, where they matter, come from the
    model card, so that a score is the one that `generate` prints. `memory`: a text is read in pieces of so many tokens,
    each of which sees the one before (models of running text). Returns the counts.
    """
    folder = model_folder(model if model is not None else latest_run())
    if model is None:
        console.say(f"model: {folder}")
    opened = open_model(folder, objective=objective)
    if objective is None and not opened.card.writes:
        hint = "`generate --json` says how probable its labels are; --objective scores text all the same"
        raise UsageError(f"the model was trained for {', '.join(opened.card.tasks)}, not to write", hint)
    scorer = scorer_of(opened, options or {}, memory)
    tally = Tally()
    records = read([source], format=input_format, on_bad_line=on_bad_line)
    with open_lines(output) as write, console.progress("score") as advance:
        for window in windows(records):
            lines = [_line(entry, as_json=as_json) for entry in _scored(window, scorer, opened, tally, on_bad_line)]
            write(lines)
            advance(len(lines))
    if tally.bad:
        console.warn(f"{tally.bad:,} of {tally.records:,} lines could not be read as they are")
    return tally


def scorer_of(opened: Opened, given: Mapping[str, Any], memory: int | None = None) -> Scorer:
    """A scorer with the model card's decoding defaults under the options that were given; `auto` is exact here."""
    options = GenerateOptions().updated({**opened.card.generate, **given})
    normalization = cast(Literal["penalty", "average", "none"], options.length_normalization)
    return Scorer(
        *opened.packed("float32" if options.dtype == "auto" else options.dtype, device_named(options.device)),
        scoring=Scoring(options.length_penalty, normalization),
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
        memory=memory,
    )


class _Entry(NamedTuple):
    """One line of output; `scored` is None for a line that could not be used."""

    id: str | int | None
    tokens: list[str]
    scored: Scored | None
    error: str | None


def _scored(window: list[Item], scorer: Scorer, opened: Opened, tally: Tally, policy: str) -> Iterator[_Entry]:
    """The entries of one window, in order."""
    found = [usable(item, tally) for item in window]
    tally.records += len(window)
    records = [record for record in found if record is not None]
    tokenizer = opened.tokenizer
    sources = text_ids(tokenizer, [record.source for record in records])
    targets = text_ids(tokenizer, [_target(record) for record in records])
    rows = [_row(scorer, *parts, policy) for parts in zip(records, sources, targets, strict=True)]
    scores = iter(scorer.score_rows([row for row in rows if isinstance(row, Row)]))
    made = iter(zip(records, targets, rows, strict=True))
    for item, record in zip(window, found, strict=True):
        error = None if isinstance(item, Record) else item.message
        if record is None:
            yield _Entry(None, [], None, error)
            continue
        _, target, row = next(made)
        if isinstance(row, DataError):
            tally.bad += 1
            yield _Entry(record.id, [], None, row.message)
        else:
            yield _Entry(record.id, tokenizer.tokens(target), next(scores), error)


def _target(record: Record) -> str | list[str]:
    return record.references[0] if record.target is None else record.target


def _row(scorer: Scorer, record: Record, source: list[int], target: list[int], policy: str) -> Row | DataError:
    """The row to score; where it does not fit, its error, which `fail` raises."""
    try:
        return scorer.row(source, target)
    except DataError as error:
        placed = DataError(f"{record.where}: {error.message}", error.hint)
        if policy == "fail":
            raise placed from error
        return placed


def _line(entry: _Entry, *, as_json: bool) -> str:
    scored = entry.scored
    if not as_json:
        return "" if scored is None else repr(scored.score)
    fields: dict[str, Any] = {"id": entry.id}
    if scored is not None:
        fields |= {"score": scored.score, "tokens": entry.tokens, "token_scores": scored.token_scores}
    return json.dumps(fields | ({"error": entry.error} if entry.error else {}), ensure_ascii=False)
