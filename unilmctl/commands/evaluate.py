"""`unilmctl evaluate`: outputs and references in, scores out. Needs no model and never loads torch.

Outputs are plain lines, or the JSON lines of `generate --json` (the best hypothesis counts). References are one or more
parallel text files, or JSON lines with `refs` (a list, or one text), `tgt`, `label` (text or a number), `tags` (a list)
or `answers` (a list, or SQuAD's). The first byte of a file tells which.
Lines end at a line feed and nowhere else.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl import console
from unilmctl import metrics as room
from unilmctl.console import Cell
from unilmctl.errors import DataError, UsageError
from unilmctl.metrics import Comparison, Interval, Options, Score

TRUTHS = ("refs", "tgt", "label", "tags", "answers")
"""What a line of references may call them."""


class Files(NamedTuple):
    """What is compared with what: "-" is standard input; `other` is a second system, `sources` what both wrote from."""

    hypotheses: Path | str
    references: list[Path]
    other: Path | None = None
    sources: Path | None = None


@dataclass(frozen=True)
class Report:
    """The scores of one system over `sentences` outputs, and with a second system one paired test per metric."""

    rows: list[Score]
    comparisons: list[Comparison]
    sentences: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary: `sentences`, `scores` and `comparisons`."""
        return {
            "sentences": self.sentences,
            "scores": [row.to_json() for row in self.rows],
            "comparisons": [row.to_json() for row in self.comparisons],
        }


class Reference(NamedTuple):
    """One line of a reference file: its references (None: missing), and its source where the file has it."""

    texts: list[str | None]
    source: str | None


def run(  # noqa: PLR0913 - the options of one command line, one by one
    *,
    hypotheses: Path | str,
    references: list[Path],
    metrics: Sequence[str] = (),
    task: str | None = None,
    compare: Path | None = None,
    sources: Path | None = None,
    language: str = "en",
    lowercase: bool = False,
    tokenize: str | None = None,
    exceptions: Path | None = None,
    confidence: bool = False,
    as_json: bool = False,
) -> Report:
    """Score `hypotheses` against `references`, show the scores (a table, or one JSON object) and return them.

    `exceptions` is WordNet's folder of irregular forms for rouge155; the rest is as in `evaluate` and `Options`.
    """
    options = Options(language, lowercase=lowercase, tokenize=tokenize, exceptions=exceptions)
    files = Files(hypotheses, references, compare, sources)
    report = evaluate(files, metrics, task=task, options=options, confidence=confidence)
    if as_json:
        console.emit(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _show(report)
    return report


def evaluate(
    files: Files,
    metrics: Sequence[str] = (),
    *,
    task: str | None = None,
    options: Options | None = None,
    confidence: bool = False,
    seed: int = room.SEED,
) -> Report:
    """Score files line by line.

    `metrics` are names or groups of the metrics room; none means those of the task, else BLEU, chrF, ROUGE and exact
    match. `task` post-processes as the papers do. `confidence` adds 95 % bootstrap intervals. Raises UsageError for
    unknown names, DataError for files that cannot be read or do not fit together.
    """
    if not files.references:
        raise UsageError("evaluate: no references", "name at least one reference file after the hypotheses")
    preset = room.task(task)
    names = room.expand(metrics or preset.metrics)
    settled = preset.options(options or Options())
    truths, sources = read_references(files.references)
    if files.sources is not None:
        sources = read_sources(files.sources)
        _same_length(files.sources, len(sources), files.references[0], len(truths))
    if preset.grouped and sources is None:
        console.warn(f"{task} groups lines by their source; without sources every line stands alone")

    def measured(path: Path | str) -> dict[str, room.Measured]:
        outputs = read_hypotheses(path)
        _same_length(path, len(outputs), files.references[0], len(truths))
        prepared, wanted = preset.prepare(outputs, truths, sources)
        return room.measure(names, prepared, wanted, settled)

    system = measured(files.hypotheses)
    other = measured(files.other) if files.other else {}
    resamples = room.RESAMPLES if confidence else 0
    return Report(
        [room.report(name, entry, resamples=resamples, seed=seed) for name, entry in system.items()],
        [room.compare(name, system[name], entry, seed=seed) for name, entry in other.items()],
        len(truths),
    )


def _show(report: Report) -> None:
    scores: list[list[Cell]] = [[row.name, row.value, _range(row.interval), row.signature] for row in report.rows]
    console.table(["metric", "score", "95 %", "signature"], scores)
    if report.comparisons:
        console.emit("")
        tests: list[list[Cell]] = [
            [row.name, row.value, row.other, row.difference, _range(row.interval), row.p_value]
            for row in report.comparisons
        ]
        console.table(["metric", "score", "other", "difference", "95 %", "p"], tests)


def _range(interval: Interval | None) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}" if interval else "-"


# --- files ----------------------------------------------------------------------------------------------------------


def read_hypotheses(path: Path | str) -> list[str]:
    """One output per line of a text file or of `generate --json`; DataError names file and line.

    A JSON line without hypotheses (a line that could not be generated from) counts as an empty output.
    """
    lines = _lines(path)
    if not _is_json(lines):
        return lines
    return [_best(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def read_references(paths: list[Path]) -> tuple[list[list[str | None]], list[str] | None]:
    """The references of every line over all files, and the lines' sources where a file has them all.

    An empty line of one text file among several is a missing reference (None); in a lone file it is an empty one.
    Raises DataError where the files differ in length or a line has no reference in any of them.
    """
    files = [_reference_file(path, alone=len(paths) == 1) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        _same_length(paths[0], len(files[0]), path, len(lines))
    merged = [[text for line in together for text in line.texts] for together in zip(*files, strict=True)]
    for number, texts in enumerate(merged, start=1):
        if all(text is None for text in texts):
            where = ", ".join(f"{path}:{number}" for path in paths)
            raise DataError(f"{where}: no reference", "give every line at least one reference")
    return merged, next(filter(None, map(_sources, files)), None)


def read_sources(path: Path) -> list[str]:
    """One source per line of a text file, or `src` of JSON lines."""
    lines = _lines(path)
    if not _is_json(lines):
        return lines
    return [
        _plain(_object(line, f"{path}:{number}").get("src"), f"{path}:{number}: 'src'")
        for number, line in enumerate(lines, start=1)
    ]


def _reference_file(path: Path, *, alone: bool) -> list[Reference]:
    lines = _lines(path)
    if _is_json(lines):
        return [_truth(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    return [Reference([line if line or alone else None], None) for line in lines]


def _sources(lines: list[Reference]) -> list[str] | None:
    known = [line.source for line in lines if line.source is not None]
    return known if len(known) == len(lines) else None


def _same_length(left: Path | str, left_lines: int, right: Path | str, right_lines: int) -> None:
    if left_lines != right_lines:
        raise DataError(
            f"{left} has {left_lines} lines but {right} has {right_lines}",
            "line n of every file must belong to the same example",
        )


def _lines(path: Path | str) -> list[str]:
    """The lines of a UTF-8 file (`.gz` is unpacked) or of standard input; DataError when there are none."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else _bytes(Path(path))
    except OSError as failure:
        raise DataError(f"{path}: {failure.strerror or failure}", "check the name of the file") from failure
    except (EOFError, zlib.error) as failure:
        raise DataError(f"{path}: broken compression: {failure}", "copy the file once more") from failure
    lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n") if content else []
    if not lines:
        raise DataError(f"{path}: the file is empty", "give at least one line")
    return [_text(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as failure:
        raise DataError(
            f"{where}: not UTF-8 (byte {failure.start + 1} is 0x{line[failure.start]:02x})",
            "convert the file, for example with iconv -f latin1 -t utf-8",
        ) from failure


# --- JSON lines -----------------------------------------------------------------------------------------------------


def _is_json(lines: list[str]) -> bool:
    return lines[0].startswith("{")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as failure:
        raise DataError(f"{where}: not JSON: {failure.msg} at column {failure.colno}") from failure
    except (ValueError, RecursionError) as failure:  # a number of thousands of digits, brackets without end
        raise DataError(f"{where}: not JSON: {str(failure)[:100]}") from failure
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object", 'a line looks like {"refs": ["..."]}')
    return value


def _best(line: str, where: str) -> str:
    fields = _object(line, where)
    if "task" in fields:  # what a head said; nothing of a line that could not be read
        said = next((fields[name] for name in ("label", "tags", "answer") if name in fields), "")
        return str(said) if isinstance(said, int | float) else _plain(said, where)
    found = fields.get("hypotheses")
    if found == []:
        return ""
    best = found[0] if isinstance(found, list) else None
    text = best.get("text") if isinstance(best, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: no hypotheses with a 'text'", "evaluate reads what `generate --json` writes")
    return text


def _truth(line: str, where: str) -> Reference:
    fields = _object(line, where)
    name = next((name for name in TRUTHS if fields.get(name) is not None), None)
    if name is None:
        raise DataError(
            f"{where}: none of {', '.join(map(repr, TRUTHS))}", 'a line looks like {"refs": ["one", "another"]}'
        )
    found = fields[name]
    if name == "answers" and isinstance(found, dict):
        found = found.get("text")
    if name == "label" and isinstance(found, int | float) and not isinstance(found, bool):
        found = str(found)
    several = found if isinstance(found, list) and name in ("refs", "answers") else [found]
    if name == "answers":
        several = [one.get("text") if isinstance(one, dict) else one for one in several] or [""]
    texts = [None if text is None else _plain(text, where) for text in several]
    source = fields.get("src")
    return Reference(texts, None if source is None else _plain(source, where))


def _plain(value: object, where: str) -> str:
    """Text as it is; a list of tokens joined by blanks."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(token, str) for token in value):
        return " ".join(value)
    raise DataError(f"{where}: {json.dumps(value)[:40]} is neither text nor a list of tokens")
