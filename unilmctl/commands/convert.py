"""unilmctl convert: a checkpoint in any supported form to a model folder, with a report of every tensor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unilmctl import console
from unilmctl.errors import UsageError
from unilmctl.objectives import DECODING
from unilmctl.weights import ConvertOptions, ConvertReport, HeadState
from unilmctl.weights import convert as convert_checkpoint

HEAD_WARNINGS: dict[HeadState, str] = {
    "missing": "the checkpoint has no language-model head: it starts untrained, so fine-tune before generating",
    "untrained": "the language-model head looks as if it had never been trained: fine-tune before generating",
}


def run(  # noqa: PLR0913 - the options of one command line, one by one
    *,
    source: str,
    destination: Path,
    config: Path | None = None,
    tokenizer: Path | None = None,
    architecture: str | None = None,
    positions: int | None = None,
    segments: int | None = None,
    keep_vocabulary: Path | None = None,
    objective: str | None = None,
    source_segment: int | None = None,
    target_segment: int | None = None,
    average: Sequence[str] = (),
    as_json: bool = False,
) -> ConvertReport:
    """Convert `source`, show the report (a table, or one JSON object) and return it.

    Raises UsageError for an objective that cannot generate; otherwise as `weights.convert`.
    """
    if objective is not None and objective not in DECODING:
        raise UsageError(f"--objective {objective}: cannot generate", f"choose one of {', '.join(DECODING)}")
    options = ConvertOptions(
        config=config,
        tokenizer=tokenizer,
        architecture=architecture,
        positions=positions,
        segments=segments,
        keep_vocabulary=keep_vocabulary,
        objective=objective,
        source_segment=source_segment,
        target_segment=target_segment,
        average=tuple(average),
    )
    report = convert_checkpoint(source, destination, options)
    if as_json:
        console.emit(json.dumps(to_json(report), ensure_ascii=False))
    else:
        console.table(["what", "where", "detail"], table(report), title=f"{source} -> {destination}")
    if report.head in HEAD_WARNINGS:
        console.warn(HEAD_WARNINGS[report.head])
    return report


def table(report: ConvertReport) -> list[tuple[str, str, str]]:
    """The report as rows: what happened, to which tensor or table, in detail."""
    rows = [("loaded", f"{report.loaded} tensors", f"{report.parameters:,} parameters, {report.config.family}")]
    rows += [("resized", name, f"{before:,} -> {after:,}: {how}") for name, before, after, how in report.resized]
    rows += [("missing", one.name, f"{list(one.shape)} initialised to {one.initialised}") for one in report.missing]
    rows += [("left over", name, reason) for name, reason in report.left_over]
    rows += [("note", "", note) for note in report.notes]
    segments = f"segments {report.card.source_segment} and {report.card.target_segment}"
    rows.append(("head", report.head, ""))
    rows.append(("objective", report.card.objective, segments))
    return rows


def to_json(report: ConvertReport) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "source": report.source,
        "destination": str(report.destination),
        "family": report.config.family,
        "parameters": report.parameters,
        "loaded": report.loaded,
        "resized": [one._asdict() for one in report.resized],
        "missing": [
            {"name": one.name, "shape": list(one.shape), "initialised": one.initialised} for one in report.missing
        ],
        "left_over": [one._asdict() for one in report.left_over],
        "notes": report.notes,
        "head": report.head,
        "objective": report.card.objective,
        "source_segment": report.card.source_segment,
        "target_segment": report.card.target_segment,
    }
