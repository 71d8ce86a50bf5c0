"""Everything that people see: messages, tables, progress, errors.

Data goes to standard output, everything else to standard error. Movement and colour appear on a terminal only (and not
with NO_COLOR, TERM=dumb, CI or `--quiet`); elsewhere progress is one plain line per interval, and nothing is wrapped,
so that `file:line` stays in one piece. The only room besides `cli` that knows rich.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from unilmctl.errors import UserError
    from unilmctl.training import Step

INTERVAL = 30.0
"""Seconds between two plain progress lines where there is no terminal."""

Cell = str | int | float | None

_quiet = False


def configure(*, quiet: bool) -> None:
    """Chooses for the whole process whether messages and progress are shown; warnings and errors always are."""
    global _quiet  # noqa: PLW0603 - one process, one pair of streams
    _quiet = quiet


def say(message: str) -> None:
    """A message for the person who runs the command, on standard error; silenced by `--quiet`."""
    if not _quiet:
        _tell(Text(message))


def warn(message: str) -> None:
    """A warning on standard error, even with `--quiet`."""
    _labelled("warning", "bold yellow", message)


def error(mistake: "UserError") -> None:
    """A user's mistake: every line of its message after `error:`, then the hint; no box, no wrapping."""
    for line in mistake.message.splitlines():
        _labelled("error", "bold red", line)
    if mistake.hint:
        _labelled("hint", "bold cyan", mistake.hint)


def emit(text: str) -> None:
    """One piece of data on standard output, followed by a line end."""
    sys.stdout.write(text + "\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str | None = None) -> None:
    """A table on standard output: drawn on a terminal, elsewhere columns parted by two blanks. Numbers stand right."""
    texts = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in texts) for column in range(len(headers))]
    if sys.stdout.isatty():
        _draw(headers, texts, numeric, title)
        return
    if title:
        emit(title)
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    for row in [list(headers), *texts]:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        emit("  ".join(cells).rstrip())


@contextmanager
def progress(label: str, *, total: int | None = None, unit: str = "lines") -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many more units are done; a moving line on a terminal, else one per interval."""
    done, started, spoken = 0, time.monotonic(), time.monotonic()

    def line() -> str:
        rate = done / max(time.monotonic() - started, 1e-9)
        of = f"/{total:,}" if total else ""
        left = f"  {duration((total - done) / rate)} left" if total and done else ""
        return f"{label}  {done:,}{of} {unit}  {rate:,.0f}/s{left}"

    with _moving(total) as move:

        def advance(count: int) -> None:
            nonlocal done, spoken
            done += count
            if move is not None:
                move(done, line())
            elif time.monotonic() - spoken >= INTERVAL:
                spoken = time.monotonic()
                say(line())

        yield advance


class TrainingProgress:
    """The line of a training run: step, loss, tokens a second, time left. A context manager; `show` takes every step.

    Elsewhere than on a terminal a plain line appears with every `log_every`-th step.
    """

    def __init__(self, *, steps: int, done: int = 0, log_every: int = 50) -> None:
        self.steps = steps
        self.log_every = log_every
        self._first = done
        self._started = time.monotonic()
        self._tokens = 0
        self._context = _moving(steps)

    def __enter__(self) -> "TrainingProgress":
        self._move = self._context.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._context.__exit__(None, None, None)

    def show(self, step: "Step") -> None:
        """Takes one optimiser step into account and shows it when it is due."""
        self._tokens += step.tokens
        seconds = max(time.monotonic() - self._started, 1e-9)
        pace = (step.number - self._first) / seconds
        left = duration((self.steps - step.number) / pace) if pace > 0 else "?"
        line = (
            f"step {step.number:,}/{self.steps:,}  loss {step.loss:.4f}  "
            f"{self._tokens / seconds:,.0f} tokens/s  {left} left"
        )
        if self._move is not None:
            self._move(step.number, line)
        elif step.number % self.log_every == 0 or step.number == self.steps:
            say(line)


def duration(seconds: float) -> str:
    """`5 s`, `4:05` or `3:04:05`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], *, width: int = 60) -> str:
    """A curve in one line of text, oldest value left: means of equal stretches of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = 7 / (high - low) if high > low else 0.0
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) * scale)] for mean in means)


def on_terminal() -> bool:
    """Whether a line may move: standard error is a terminal that can, and nobody asked for silence."""
    return not _quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


@contextmanager
def _moving(total: int | None) -> Iterator[Callable[[int, str], None] | None]:
    """A line that is drawn over and over, taken away at the end; None where nothing may move."""
    if not on_terminal():
        yield None
        return
    bar = BarColumn(bar_width=24) if total else SpinnerColumn()
    with Progress(bar, TextColumn("{task.description}", markup=False), console=_stderr(), transient=True) as lines:
        task = lines.add_task("", total=total)
        yield lambda done, text: lines.update(task, completed=done, description=text)


def _stderr() -> Console:
    return Console(stderr=True)


def _labelled(label: str, style: str, message: str) -> None:
    _tell(Text.assemble((f"{label}:", style), " ", message))


def _tell(line: Text) -> None:
    """A line on standard error; when the system refuses it, nobody can be told, and the work goes on."""
    try:
        _stderr().print(line, highlight=False, soft_wrap=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _is_number(text: str) -> bool:
    return text == "-" or text.lstrip("+-").replace(",", "").replace(".", "", 1).isdigit()


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def _draw(headers: Sequence[str], texts: list[list[str]], numeric: list[bool], title: str | None) -> None:
    drawing = Table(title=title, title_justify="left")
    for header, right in zip(headers, numeric, strict=True):
        drawing.add_column(Text(header), justify="right" if right else "left")
    for row in texts:
        drawing.add_row(*map(Text, row))
    Console().print(drawing)
