"""report.html, its charts, and TensorBoard: what a run shows of itself."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unilmctl.commands.inspect import run as inspect_run
from unilmctl.data.store import StoreWriter
from unilmctl.errors import RecipeError
from unilmctl.runs import RunFolder, report_page, write_report
from unilmctl.runs.board import Board, require_tensorboard
from unilmctl.runs.charts import Line, bar_chart, line_chart, short, thinned, ticks

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
numbers = st.floats(-1e9, 1e9).map(lambda value: round(value, 6))
NASTY = "<script>alert('x')</script> & \N{HEBREW LETTER ALEF}"


def evaluation(step: int, output: str, **scores: float) -> dict[str, Any]:
    examples = [{"source": f"source {NASTY}", "output": output, "reference": "the reference"}]
    return {"event": "evaluation", "step": step, "loss": 3.0 - step / 10, **scores, "examples": examples, "seconds": 1}


def a_run(folder: Path) -> RunFolder:
    run = RunFolder(folder / "runs" / "one")
    run.start("run: runs/one  # <b>\n")
    for step in (2, 4, 6):
        figures = {"loss": 4.0 - step / 10, "learning_rate": 1e-4 * step, "tokens_per_second": 900, "seconds": 2.0}
        run.log({"event": "steps", "step": step, **figures, "gradient_norm": math.nan, "skipped": 0})
        run.log(evaluation(step, f"written at {step}", bleu=10.0 * step))
    return run


class Page(HTMLParser):
    """Tags, addresses and text of a page; every opened tag must be closed in order."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [name for name, _ in attrs if name in ("src", "href", "xlink:href", "action", "style")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_shows_curves_lengths_and_outputs_and_fetches_nothing(tmp_path: Path) -> None:
    text = report_page(a_run(tmp_path), {"train: source": [(1, 4, 7), (5, 8, 2)]})
    page = Page(text)
    assert page.addresses == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text
    assert page.tags.count("svg") == 5  # loss, bleu, throughput, learning rate, lengths; a norm of no numbers has none
    for shown in ("training", "validation", "bleu", "train: source", "written at 2", "written at 6", NASTY):
        assert shown in page.text
    assert "prefers-color-scheme: dark" in text
    assert "lowest 20 at step 2, highest 60 at step 6" in page.text
    assert "9 examples" in page.text


def test_its_drawings_are_whole_and_within_their_frames(tmp_path: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", report_page(a_run(tmp_path), {"train: source": [(1, 4, 7)]}), re.DOTALL)
    assert len(drawings) == 5
    drawn = 0
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        points = [(one.attrib["cx"], one.attrib["cy"]) for one in root.iter("circle")]
        points += [tuple(point.split(",")) for line in root.iter("polyline") for point in line.attrib["points"].split()]
        drawn += len(points)
        assert all(left <= float(x) <= left + width and top <= float(y) <= top + height for x, y in points)
    assert drawn > 10


def test_a_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "empty")
    run.folder.mkdir()
    page = Page(report_page(run, {}))
    assert "svg" not in page.tags
    assert "none yet" in page.text


def test_outputs_of_many_evaluations_are_thinned(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(1, 201):
        run.log(evaluation(step, f"<{step}>"))
    found = [int(step) for step in re.findall(r"&lt;(\d+)&gt;", report_page(run, {}))]
    assert (found[0], found[-1]) == (1, 200)
    assert 10 < len(found) <= 30


def test_an_older_log_without_sources_is_shown(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log({"event": "evaluation", "step": 1, "loss": 1.0, "examples": [{"output": "o", "reference": "r"}]})
    assert "source" not in Page(report_page(run, {})).text


def test_a_browser_draws_it(tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    run = a_run(tmp_path)
    write_report(run, {})
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}")
    page = (run.folder / "report.html").resolve().as_uri()
    done = subprocess.run([browser, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("<svg") == 4
    assert "written at 6" in done.stdout


def test_inspect_run_writes_a_page_with_the_lengths_of_the_stores(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with StoreWriter(run.folder / "store" / "train", ("source", "target"), {}) as writer:
        writer.add(source=[1, 2, 3], target=[4])
    inspect_run.run(folder=run.folder, html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "train: target" in text
    assert "valid: target" not in text


def test_a_cleared_run_has_no_report(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    write_report(run, {})
    assert (run.folder / "report.html").is_file()
    run.clear()
    assert not (run.folder / "report.html").exists()


@given(st.lists(st.tuples(st.integers(0, 10**6).map(float), numbers | st.just(math.nan)), max_size=40))
@example([(1.0, 0.0), (1.0, 0.0)])
@example([(1.0, 1e-300), (2.0, 1.1e-300)])
@settings(deadline=None, max_examples=60)
def test_a_line_stays_within_its_chart(points: list[tuple[float, float]]) -> None:
    drawn = line_chart("a & b", [Line("<name>", points)])
    finite = [point for point in points if math.isfinite(point[1])]
    assert bool(drawn) == bool(finite)
    if not finite:
        return
    root = ElementTree.fromstring(drawn)
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]
    assert len(dots) == len(finite)
    assert all(57 <= x <= 547 and 11 <= y <= 195 for x, y in dots)
    ordered = sorted(range(len(finite)), key=lambda at: finite[at][1])
    heights = [dots[at][1] for at in ordered]
    assert heights == sorted(heights, reverse=True)


def test_a_line_breaks_where_there_is_no_number() -> None:
    points = [(1.0, 1.0), (2.0, 2.0), (3.0, math.nan), (4.0, 4.0), (5.0, 5.0)]
    assert line_chart("x", [Line("x", points)]).count("<polyline") == 2


@given(st.lists(numbers, min_size=1, max_size=400), st.integers(4, 60))
@settings(deadline=None, max_examples=60)
def test_a_thinned_line_keeps_its_ends_and_extremes(values: list[float], most: int) -> None:
    points = [(float(at), value) for at, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= max(most, 2)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == [point for point in points if point in kept]
    assert min(y for _, y in kept) == min(values)
    assert max(y for _, y in kept) == max(values)


@given(numbers, st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=60)
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    high = low + width
    if high - low < 1e-9 * abs(low):
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - width / 100 <= value <= high + width / 100 for value in found)
    assert found == sorted(set(found))


def test_bars_are_as_high_as_their_counts() -> None:
    root = ElementTree.fromstring(bar_chart("x", [(1, 2, 10), (3, 4, 0), (5, 6, 5)]))
    heights = [float(bar.attrib["height"]) for bar in root.iter("rect")]
    assert heights[1] == 0
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.2)
    assert [title.text for title in root.iter("title")] == ["1–2 tokens: 10", "3–4 tokens: 0", "5–6 tokens: 5"]
    assert bar_chart("x", []) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (16384, "16.38k"), (3.2e6, "3.2M"), (7e-5, "7e-05"), (9999, "9999")],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    assert short(value) == expected


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    board = Board(tmp_path)
    board.write({"event": "steps", "step": 5, "loss": 2.5, "learning_rate": 1e-4})
    board.write({"event": "evaluation", "step": 6, "scores": {"bleu": 31.0}, "examples": [{"output": "o"}]})
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"steps/loss", "steps/learning_rate", "evaluation/scores.bleu"}
    (found,) = events.Scalars("evaluation/scores.bleu")
    assert (found.step, found.value) == (6, 31.0)


def test_a_missing_tensorboard_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unilmctl.runs.board.find_spec", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        require_tensorboard()
    assert caught.value.message == "finetune.tensorboard: true needs the package tensorboard"
    assert 'pip install "unilmctl[tensorboard]"' in str(caught.value.hint)


def test_listeners_are_told_what_is_logged(tmp_path: Path) -> None:
    run, heard = RunFolder(tmp_path), list[dict[str, Any]]()
    run.listeners.append(heard.append)
    run.log({"event": "steps", "step": 1})
    assert heard == [json.loads((tmp_path / "log.jsonl").read_text())]
