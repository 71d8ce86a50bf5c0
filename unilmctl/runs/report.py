"""report.html: a run on one page that needs nothing but itself; no script, nothing fetched.

Loss, scores, learning rate and throughput over the steps, how long the examples are, and what the model wrote at each
evaluation. It is made from log.jsonl alone, and can be made again at any time.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from unilmctl.data.lengths import Bars, histogram
from unilmctl.data.store import Store
from unilmctl.files import write_atomically
from unilmctl.runs.charts import Line, bar_chart, line_chart, short, thinned
from unilmctl.runs.curves import Curve, curves
from unilmctl.runs.folder import REPORT, RunFolder
from unilmctl.runs.style import STYLE

Lengths = Mapping[str, Bars]
"""What is counted (`train: source`) -> how many examples of which length."""

EVALUATIONS = 30
"""Evaluations whose outputs are shown at most: the first, the last, and some between."""

FIGURES = {
    "tokens_per_second": "Throughput: tokens per second",
    "learning_rate": "Learning rate",
    "gradient_norm": "Norm of the gradient",
    "padding": "Share of padding",
}
"""Figures of the training steps, besides the loss."""

PARTS = "parts."
"""What the names of the figures of objectives and heads begin with."""

WITHOUT_CHART = frozenset({"loss", "seconds"})


def lengths_of(stores: Mapping[str, Store]) -> Lengths:
    """How long sources and targets are in the stores of these splits."""
    return {
        f"{split}: {field}": histogram(store.lengths(field))
        for split, store in stores.items()
        for field in store.fields
    }


def write_report(run: RunFolder, lengths: Lengths) -> None:
    """Writes report.html into the run folder."""
    with write_atomically(run.folder / REPORT) as file:
        file.write(report_page(run, lengths).encode())


def report_page(run: RunFolder, lengths: Lengths) -> str:
    """The page as HTML."""
    entries = run.read_log()
    name = escape(run.folder.resolve().name)
    recipe = run.recipe.read_text(encoding="utf-8", errors="replace") if run.recipe.is_file() else ""
    body = [
        f"<header><h1>{name}</h1>{_summary(run, entries)}</header>",
        _section("Loss and scores", _loss_and_scores(entries)),
        _section("What the loss is made of", _parts(entries)),
        _section("Speed and schedule", _figures(entries)),
        _section("Lengths of the examples, in tokens", _histograms(lengths)),
        _section("What it writes", _samples(entries)),
        _section("Recipe", f"<details><summary>recipe.yaml</summary><pre>{escape(recipe)}</pre></details>"),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inner}</section>" if inner else ""


def _summary(run: RunFolder, entries: list[dict[str, Any]]) -> str:
    """The figures that one looks for first."""
    steps = [entry for entry in entries if entry["event"] == "steps"]
    measured = [entry for entry in entries if entry["event"] == "evaluation"]
    best = run.pointed("best")
    shown = {"steps": f"{max((int(entry['step']) for entry in entries), default=0):,}"}
    if steps:
        seconds = sum(float(entry["seconds"]) for entry in steps)
        tokens = sum(float(entry["seconds"]) * float(entry["tokens_per_second"]) for entry in steps)
        shown["training loss"] = f"{float(steps[-1]['loss']):.4g}"
        shown["tokens per second"] = short(tokens / seconds) if seconds else "-"
        shown["hours of training"] = f"{seconds / 3600:.3g}"
        if steps[-1].get("skipped"):
            shown["steps skipped"] = str(steps[-1]["skipped"])
    if measured:
        shown["validation loss"] = f"{float(measured[-1]['loss']):.4g}"
    shown["best checkpoint"] = best.name if best else "none yet"
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in shown.items())
    return f"<dl>{cells}</dl>"


def _loss_and_scores(entries: list[dict[str, Any]]) -> str:
    found = curves(entries)
    losses = {"training": found.get("steps.loss"), "validation": found.get("evaluation.loss")}
    losses["average of the last checkpoints"] = found.get("average.loss")
    charts = [_chart("Loss per label (training: with label smoothing)", losses)]
    for key, curve in found.items():
        event, _, name = key.partition(".")
        if event == "evaluation" and name not in WITHOUT_CHART and not name.startswith(PARTS):
            average = found.get(f"average.{name}")
            charts.append(_chart(name, {name: curve, "average of the last checkpoints": average}))
    return _grid(charts)


def _parts(entries: list[dict[str, Any]]) -> str:
    """Loss and accuracy of every objective and head, where a run has several."""
    found = curves(entries)
    known = (key.partition(".")[2] for key in found)
    names = dict.fromkeys(name for name in known if name.startswith(PARTS) and not name.endswith(".labels"))
    charts = []
    for name in names:
        part, _, figure = name.removeprefix(PARTS).rpartition(".")
        lines = {"training": found.get(f"steps.{name}"), "validation": found.get(f"evaluation.{name}")}
        charts.append(_chart(f"{part}: {figure}", lines))
    return _grid(charts)


def _figures(entries: list[dict[str, Any]]) -> str:
    found = curves(entries)
    return _grid([_chart(title, {title: found.get(f"steps.{name}")}) for name, title in FIGURES.items()])


def _chart(title: str, named: Mapping[str, Curve | None]) -> str:
    """One chart with its title, its legend when there are several lines, and its last, lowest and highest values."""
    lines = [
        Line(name, [(float(step), value) for step, value in zip(*curve, strict=True)])
        for name, curve in named.items()
        if curve is not None
    ]
    drawn = line_chart(title, lines)
    if not drawn:
        return ""
    keys = [f'<span class="key key-{number}">{escape(line.name)}</span>' for number, line in enumerate(lines, start=1)]
    legend = f'<p class="legend">{" ".join(keys)}</p>' if len(lines) > 1 else ""
    notes = "".join(f"<p>{escape(_note(line, named=len(lines) > 1))}</p>" for line in lines)
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{drawn}{notes}</figure>"


def _note(line: Line, *, named: bool) -> str:
    ordered = sorted((y, x) for x, y in line.points if math.isfinite(y))
    if not ordered:
        return ""
    (low, at_low), (high, at_high) = ordered[0], ordered[-1]
    last = f"last {line.points[-1][1]:.5g}"
    extremes = f"lowest {low:.5g} at step {at_low:,.0f}, highest {high:.5g} at step {at_high:,.0f}"
    return f"{line.name}: {last}, {extremes}" if named else f"{last}, {extremes}"


def _histograms(lengths: Lengths) -> str:
    charts = []
    for name, bars in lengths.items():
        drawn = bar_chart(f"Examples by length, {name}", bars)
        count = sum(count for _, _, count in bars)
        charts.append(f"<figure><figcaption>{escape(name)}</figcaption>{drawn}<p>{count:,} examples</p></figure>")
    return _grid(charts)


def _grid(charts: list[str]) -> str:
    drawn = "".join(charts)
    return f'<div class="grid-of-charts">{drawn}</div>' if drawn else ""


def _samples(entries: list[dict[str, Any]]) -> str:
    """Each logged example with its source and reference, and below them what was written at which step."""
    measured = [entry for entry in entries if entry["event"] in ("evaluation", "average") and entry.get("examples")]
    chosen = [measured[int(at)] for at, _ in thinned([(float(at), 0.0) for at in range(len(measured))], EVALUATIONS)]
    if not chosen:
        return ""
    count = min(len(entry["examples"]) for entry in chosen)
    return "".join(_sample(number, chosen) for number in range(count))


def _sample(number: int, entries: list[dict[str, Any]]) -> str:
    last = entries[-1]["examples"][number]
    known = [(name, last.get(name)) for name in ("source", "reference")]
    rows = [f'<tr class="given"><th>{name}</th>{_cell(str(text))}</tr>' for name, text in known if text is not None]
    for entry in entries:
        label = f"step {entry['step']:,}" if entry["event"] == "evaluation" else "average"
        rows.append(f"<tr><th>{label}</th>{_cell(str(entry['examples'][number]['output']))}</tr>")
    opened = " open" if number == 0 else ""
    return f"<details{opened}><summary>example {number + 1}</summary><table>{''.join(rows)}</table></details>"


def _cell(text: str) -> str:
    return f'<td dir="auto">{escape(text)}</td>'
