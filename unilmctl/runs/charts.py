"""Charts as SVG text: lines over steps, and bars over lengths. A few small functions, no library, no script.

Colours are classes of the page that holds the chart (`grid`, `bar`, `line-1`, `dot-1` ...), so that it reads in light
and dark. Shapes that mean something carry a <title>, which a browser shows under the pointer.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 26
MOST = 600
"""Points of a line that are drawn at most."""

DOTS = 60
"""A line of more points than this shows no dots."""


class Line(NamedTuple):
    """One line of a chart: its name and its points; where y is no finite number, the line breaks."""

    name: str
    points: list[tuple[float, float]]


class Scale(NamedTuple):
    """Numbers from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` lies, in pixels."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(label: str, lines: Sequence[Line]) -> str:
    """Lines over steps; "" when not one point can be drawn. `label` is what a screen reader says."""
    finite = [point for line in lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        return ""
    across = _scale([x for x, _ in finite], LEFT, WIDTH - RIGHT, nice=False)
    upward = _scale([y for _, y in finite], HEIGHT - BOTTOM, TOP, nice=True)
    parts = [*_rows(upward), *_steps(across)]
    for number, line in enumerate(lines, start=1):
        parts += _drawn(line, number, across, upward)
    return _svg(label, parts)


def bar_chart(label: str, bars: Sequence[tuple[int, int, int]]) -> str:
    """Bars of (first, last, count); "" when there are none."""
    most = max((count for _, _, count in bars), default=0)
    if not most:
        return ""
    upward = _scale([0, most], HEIGHT - BOTTOM, TOP, nice=True)
    step = (WIDTH - LEFT - RIGHT) / len(bars)
    parts = list(_rows(upward))
    for number, (first, last, count) in enumerate(bars):
        left, top = round(LEFT + step * number + 1, 1), upward(count)
        name = f"{first}" if first == last else f"{first}\N{EN DASH}{last}"
        height = round(HEIGHT - BOTTOM - top, 1)
        parts.append(
            f'<rect class="bar" x="{left}" y="{top}" width="{round(step - 2, 1)}" height="{height}" rx="2">'
            f"<title>{name} tokens: {count:,}</title></rect>"
        )
        if number % max(1, len(bars) // 6) == 0:
            parts.append(_text(left, HEIGHT - 8, f"{first}", "start"))
    return _svg(label, parts)


def thinned(points: Sequence[tuple[float, float]], most: int = MOST) -> list[tuple[float, float]]:
    """At most `most` of the points, in order: the first, the last, and the extremes of equal stretches between."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 2) // 2)
    inner = range(1, len(points) - 1)
    chosen = {0, len(points) - 1}
    for number in range(stretches):
        places = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        finite = [place for place in places if math.isfinite(points[place][1])]
        if finite:
            chosen |= {min(finite, key=lambda at: points[at][1]), max(finite, key=lambda at: points[at][1])}
    return [points[place] for place in sorted(chosen)]


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` or above to `high`, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number in a few characters: 0.25, 16k, 3.2M, 7e-05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"


def _scale(values: Sequence[float], start: float, end: float, *, nice: bool) -> Scale:
    """A scale that holds all values; a `nice` one ends at round numbers."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = max(abs(low) * 0.1, 1e-9) if low else 1.0
        low, high = low - room, high + room
    if nice:
        step = ticks(low, high)
        width = step[1] - step[0] if len(step) > 1 else high - low
        low, high = math.floor(low / width + 1e-9) * width, math.ceil(high / width - 1e-9) * width
    return Scale(low, high, start, end)


def _rows(upward: Scale) -> Iterator[str]:
    """Horizontal lines with their numbers."""
    for value in ticks(upward.low, upward.high):
        y = upward(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield _text(LEFT - 6, y + 4, short(value), "end")


def _steps(across: Scale) -> Iterator[str]:
    for value in ticks(across.low, across.high):
        if value == int(value):
            yield _text(across(value), HEIGHT - 8, short(value), "middle")


def _drawn(line: Line, number: int, across: Scale, upward: Scale) -> Iterator[str]:
    """The line in pieces between the gaps, and a dot for each of few points."""
    piece: list[str] = []
    for x, y in [*thinned(line.points), (0.0, math.nan)]:
        if math.isfinite(y):
            piece.append(f"{across(x)},{upward(y)}")
            continue
        if len(piece) > 1:
            yield f'<polyline class="line line-{number}" points="{" ".join(piece)}"/>'
        piece = []
    finite = [point for point in line.points if math.isfinite(point[1])]
    for x, y in finite if len(finite) <= DOTS else []:
        title = f"{line.name}, step {x:,.0f}: {y:.6g}"
        place = f'cx="{across(x)}" cy="{upward(y)}"'
        yield f'<circle class="dot dot-{number}" {place} r="3"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{round(y, 1)}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
