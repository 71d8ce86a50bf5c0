"""Pictures of a mask: as text for a terminal, as SVG for a page, as PNG for everything else.

A row of a picture is a query and a column a key, both in the order of the tokens. A filled cell says that the query
reads the key; keys that stop being readable at some time are drawn in another colour. Beside each token stand its time,
its `until` where it has one, and what it predicts.

Shapes: T tokens.
"""

from dataclasses import dataclass
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from unilmctl.visibility.raster import Canvas
from unilmctl.visibility.rule import FOREVER, PADDING, Slots, visible

CELL = 14
"""Pixels of a cell in SVG and PNG."""

WIDEST = 14
"""A token is cut to this many columns of a terminal."""

INK, PALE, GRID = "#1f2937", "#6b7280", "#e5e7eb"
LASTING, PASSING, QUERY = "#2563eb", "#f59e0b", "#fef3c7"


@dataclass(frozen=True)
class Picture:
    """What is drawn: T tokens, their slots [T], and what is predicted at some of them."""

    title: str
    tokens: list[str]
    slots: Slots
    predicts: dict[int, str]

    def cells(self) -> list[list[bool]]:
        """Which keys each query reads, [T][T]."""
        cells: list[list[bool]] = visible(self.slots, self.slots).tolist()
        return cells

    def passing(self) -> list[bool]:
        """Which tokens stop being readable, [T]."""
        return [until != FOREVER for until in self.slots.until.tolist()]

    def moments(self) -> list[str]:
        """When each token is written and, with an `until`, when it stops being readable: `3` or `3-4`, [T]."""
        columns = zip(self.slots.document.tolist(), self.slots.time.tolist(), self.slots.until.tolist(), strict=True)
        return [
            "pad" if document == PADDING else str(time) if until == FOREVER else f"{time}-{until}"
            for document, time, until in columns
        ]


def draw_text(picture: Picture) -> str:
    """One character a cell: full for read, half for a key that stops being readable, a dot for not read."""
    tokens = [shorten(token, WIDEST) for token in picture.tokens]
    wide = max(width(token) for token in tokens)
    moments = picture.moments()
    late = max(4, *(len(moment) for moment in moments))
    margin = " " * (6 + wide + late)
    lines = [picture.title] if picture.title else []
    lines += [margin + header for header in _numbers(len(tokens))]
    passing = picture.passing()
    for index, cells in enumerate(picture.cells()):
        marks = "".join(_mark(cell, passing[key]) for key, cell in enumerate(cells))
        token = tokens[index] + " " * (wide - width(tokens[index]))
        answer = f"  > {picture.predicts[index]}" if index in picture.predicts else ""
        lines.append(f"{index:3d} {token} {moments[index]:>{late}} {marks}{answer}")
    return "\n".join(lines) + "\n"


def _mark(cell: bool, passing: bool) -> str:
    return ("▒" if passing else "█") if cell else "·"


def _numbers(count: int) -> list[str]:
    """The column numbers, written downwards."""
    digits = len(str(count - 1))
    return ["".join(f"{index:{digits}d}"[place] for index in range(count)) for place in range(digits)]


def width(text: str) -> int:
    """Columns of a terminal that the text takes: two for a Chinese, Japanese or Korean character."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def shorten(text: str, most: int) -> str:
    """The text, cut to `most` columns with an ellipsis."""
    if width(text) <= most:
        return text
    while width(text) > most - 1:
        text = text[:-1]
    return text + "…"


@dataclass(frozen=True)
class _Plan:
    """Where things lie in a drawing, in pixels: the matrix begins at (left, top)."""

    left: int
    top: int
    side: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.left + self.side + self.right, self.top + self.side + CELL


def _plan(picture: Picture) -> _Plan:
    token = max(width(shorten(token, WIDEST)) for token in picture.tokens)
    moment = max(len(moment) for moment in picture.moments())
    answer = max((width(answer) + 2 for answer in picture.predicts.values()), default=0)
    return _Plan(
        left=7 * (token + moment + 4), top=7 * token + 40, side=CELL * len(picture.tokens), right=7 * answer + 24
    )


def draw_svg(picture: Picture) -> str:
    """A self-contained SVG."""
    plan = _plan(picture)
    across, down = (max(plan.size[0], 7 * width(picture.title) + 20), plan.size[1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{down}" viewBox="0 0 {across} {down}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">',
        f"<title>{escape(picture.title)}</title>",
        f'<rect width="{across}" height="{down}" fill="white"/>',
        _words(10, 18, picture.title, INK, "start"),
    ]
    for index in range(len(picture.tokens)):
        parts += _svg_labels(picture, plan, index)
    passing = picture.passing()
    for query, cells in enumerate(picture.cells()):
        parts += [_svg_cell(plan, query, key, passing[key]) for key, cell in enumerate(cells) if cell]
    parts.append(_svg_grid(plan, len(picture.tokens)))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _svg_labels(picture: Picture, plan: _Plan, index: int) -> list[str]:
    """What stands left of, right of and above the matrix for one token."""
    token, moment = shorten(picture.tokens[index], WIDEST), picture.moments()[index]
    line, column = plan.top + CELL * index + 11, plan.left + CELL * index + 11
    parts = []
    if index in picture.predicts:
        parts.append(f'<rect x="0" y="{line - 11}" width="{plan.size[0]}" height="{CELL}" fill="{QUERY}"/>')
        parts.append(_words(plan.left + plan.side + 8, line, f"→ {picture.predicts[index]}", INK, "start"))
    parts.append(_words(plan.left - 7 * len(moment) - 16, line, token, INK, "end"))
    parts.append(_words(plan.left - 6, line, moment, PALE, "end"))
    turn = f' transform="rotate(-90 {column} {plan.top - 6})"'
    parts.append(_words(column, plan.top - 6, token, INK, "start", turn))
    return parts


def _words(x: int, y: int, text: str, colour: str, anchor: str, extra: str = "") -> str:
    place = f'x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text {place} xml:space="preserve"{extra}>{escape(text)}</text>'


def _svg_cell(plan: _Plan, query: int, key: int, passing: bool) -> str:
    x, y = plan.left + CELL * key + 1, plan.top + CELL * query + 1
    return f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="{PASSING if passing else LASTING}"/>'


def _svg_grid(plan: _Plan, count: int) -> str:
    steps = [CELL * index for index in range(count + 1)]
    lines = [f"M{plan.left} {plan.top + step}h{plan.side}M{plan.left + step} {plan.top}v{plan.side}" for step in steps]
    return f'<path d="{"".join(lines)}" stroke="{GRID}" fill="none"/>'


def draw_png(picture: Picture) -> bytes:
    """A PNG file. Its letters are ASCII: another character is drawn as a box."""
    plan = _plan(picture)
    canvas = Canvas(max(plan.size[0], 6 * len(picture.title) + 20), plan.size[1])
    canvas.write(10, 10, picture.title, INK)
    passing, moments = picture.passing(), picture.moments()
    for index, cells in enumerate(picture.cells()):
        y, x = plan.top + CELL * index, plan.left + CELL * index
        token = shorten(picture.tokens[index], WIDEST)
        if index in picture.predicts:
            canvas.fill(0, y, plan.size[0], CELL, QUERY)
            canvas.write(plan.left + plan.side + 8, y + 4, f"> {picture.predicts[index]}", INK)
        canvas.write(plan.left - 7 * len(moments[index]) - 14 - 6 * len(token), y + 4, token, INK)
        canvas.write(plan.left - 6 * len(moments[index]) - 6, y + 4, moments[index], PALE)
        canvas.write_upwards(x + 4, plan.top - 6, token, INK)
        for key, cell in enumerate(cells):
            left = plan.left + CELL * key
            canvas.fill(left, y, CELL, CELL, GRID)
            canvas.fill(
                left + 1, y + 1, CELL - 1, CELL - 1, (PASSING if passing[key] else LASTING) if cell else "#ffffff"
            )
    return canvas.png()
