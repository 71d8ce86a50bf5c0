"""What people see: streams, tables, progress, errors."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl import console
from unilmctl.errors import DataError, RecipeError


@pytest.fixture(autouse=True)
def _talkative() -> None:
    console.configure(quiet=False)


def step(number: int, *, loss: float = 2.5, tokens: int = 100) -> Any:
    return cast(Any, SimpleNamespace(number=number, loss=loss, tokens=tokens))


def test_messages_go_to_stderr_and_data_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a message [bold]as it is[/bold]")
    console.emit("data")
    assert capsys.readouterr() == ("data\n", "a message [bold]as it is[/bold]\n")


def test_quiet_silences_messages_but_neither_warnings_nor_errors(capsys: pytest.CaptureFixture[str]) -> None:
    console.configure(quiet=True)
    console.say("a message")
    console.warn("careful")
    console.error(DataError("wrong"))
    console.configure(quiet=False)
    assert capsys.readouterr().err == "warning: careful\nerror: wrong\n"


def test_long_errors_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    place = "recipes/x.yaml:12:3: " + "word " * 60
    console.error(RecipeError(place + "\nsecond", "mend it"))
    assert capsys.readouterr().err == f"error: {place}\nerror: second\nhint: mend it\n"


def test_a_table_aligns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "count"], [["a", 5], ["bcd", 12345], ["e", None]], title="things")
    assert capsys.readouterr().out == "things\nname   count\na          5\nbcd   12,345\ne          -\n"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.00"), (0.5, "0.50"), (0.0123, "0.012"), (12345.678, "12,345.68"), (-3, "-3")]
)
def test_numbers_in_tables(value: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["n"], [[value]])
    assert capsys.readouterr().out.split()[1] == shown


def test_an_empty_table_shows_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "count"], [])
    assert capsys.readouterr().out == "name  count\n"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59.4, "59 s"), (60, "1:00"), (3599, "59:59"), (3725, "1:02:05")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert console.duration(seconds) == shown


def test_a_sparkline_follows_its_values() -> None:
    assert console.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert console.sparkline([3, 3, 3]) == "▁▁▁"
    assert console.sparkline([]) == ""
    assert console.sparkline([1, math.nan, math.inf, 2]) == "▁█"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 80))
@settings(deadline=None, max_examples=50)
def test_a_sparkline_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(console.sparkline(values, width=width)) == min(width, len(values))


def test_training_shows_plain_lines_now_and_then_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingProgress(steps=5, log_every=2) as line:
        for number in range(1, 6):
            line.show(step(number))
    lines = capsys.readouterr().err.splitlines()
    assert [text.split("  ")[:2] for text in lines] == [
        ["step 2/5", "loss 2.5000"],
        ["step 4/5", "loss 2.5000"],
        ["step 5/5", "loss 2.5000"],
    ]
    assert all("tokens/s" in text and text.endswith("left") for text in lines)


def test_progress_is_silent_until_its_interval_is_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.progress("reading") as advance:
        advance(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "INTERVAL", 0.0)
    with console.progress("reading", total=4) as advance:
        advance(1)
    assert capsys.readouterr().err.startswith("reading  1/4 lines  ")


def test_nothing_moves_without_a_terminal_or_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not console.on_terminal()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert console.on_terminal()
    monkeypatch.setenv("TERM", "dumb")
    assert not console.on_terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "1")
    assert not console.on_terminal()


def test_a_moving_line_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with console.TrainingProgress(steps=2, log_every=1) as line:
        line.show(step(1))
    shown = capsys.readouterr().err
    assert "\x1b[" in shown
    assert "step 1/2" in shown
