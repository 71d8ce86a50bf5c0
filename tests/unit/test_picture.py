"""Pictures of a mask, in characters, SVG and PNG."""

import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import torch

from unilmctl.visibility import FOREVER, PADDING, Picture, Slots, draw_png, draw_svg, draw_text
from unilmctl.visibility.font import GLYPHS, UNKNOWN
from unilmctl.visibility.picture import CELL, LASTING, PASSING, QUERY, shorten, width
from unilmctl.visibility.raster import Canvas


def picture(tokens: list[str] | None = None, predicts: dict[int, str] | None = None) -> Picture:
    """Source, a target, and the [P] that predicts it."""
    slots = Slots(
        torch.tensor([0, 0, 0, PADDING]), torch.tensor([0, 2, 1, 0]), torch.tensor([FOREVER, FOREVER, 2, FOREVER])
    )
    return Picture(
        "three <tokens>", tokens or ["x", "电影", "[P]", "&"], slots, {2: "电影"} if predicts is None else predicts
    )


def test_text():
    assert draw_text(picture()) == (
        "three <tokens>\n"
        "              0123\n"
        "  0 x       0 █···\n"
        "  1 电影    2 ██··\n"
        "  2 [P]   1-2 █·▒·  > 电影\n"
        "  3 &     pad ···█\n"
    )


def test_text_without_a_title_or_a_prediction():
    plain = draw_text(Picture("", ["a", "b", "c", "d"], picture().slots, {}))
    assert plain.splitlines()[0].strip() == "0123"
    assert ">" not in plain


def test_columns_are_numbered_downwards():
    count = 12
    slots = Slots(torch.zeros(count).long(), torch.arange(count), torch.full((count,), FOREVER))
    lines = draw_text(Picture("", list("abcdefghijkl"), slots, {})).splitlines()
    assert lines[0].strip() == "11"
    assert lines[1].strip() == "012345678901"
    assert lines[13].endswith("█" * 12)


def test_one_token():
    slots = Slots(torch.tensor([0]), torch.tensor([0]), torch.tensor([FOREVER]))
    one = Picture("one", ["a"], slots, {})
    assert draw_text(one).splitlines()[-1].endswith("█")
    ET.fromstring(draw_svg(one))
    assert decode(draw_png(one)).ndim == 3


def test_width_counts_two_for_wide_characters():
    assert [width("ab"), width("电影"), width("カナ"), width("한"), width("é")] == [2, 4, 4, 2, 1]
    assert shorten("电影院电影院电影院", 8) == "电影院…"
    assert shorten("short", 8) == "short"
    assert width(shorten("x" * 50, 14)) == 14


def svg_cells(drawn: str, colour: str) -> set[tuple[int, int]]:
    """(column, line) of the cells of a colour, from the leftmost and topmost cell of any colour."""
    found = {}
    for rect in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect"):
        found.setdefault(rect.get("fill"), []).append((int(rect.get("x", 0)), int(rect.get("y", 0))))
    cells = found[LASTING] + found[PASSING]
    left, top = min(x for x, _ in cells), min(y for _, y in cells)
    return {((x - left) // CELL, (y - top) // CELL) for x, y in found[colour]}


def test_svg_is_whole_and_shows_the_mask():
    drawn = draw_svg(picture())
    root = ET.fromstring(drawn)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"three <tokens>", "x", "电影", "[P]", "&", "1-2", "pad", "→ 电影"} <= set(texts)
    assert svg_cells(drawn, LASTING) == {(0, 0), (0, 1), (1, 1), (0, 2), (3, 3)}
    assert svg_cells(drawn, PASSING) == {(2, 2)}
    assert drawn.count(QUERY) == 1
    assert "href" not in drawn
    assert "<script" not in drawn


def decode(png: bytes) -> np.ndarray:
    """The pixels of a PNG that was written without filters."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        kind, body = png[place + 4 : place + 8], png[place + 8 : place + 8 + size]
        assert struct.unpack(">I", png[place + 8 + size : place + 12 + size])[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + size
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    across, down, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(down, 1 + 3 * across)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(down, across, 3)


def rgb(colour: str) -> list[int]:
    return [int(colour[index : index + 2], 16) for index in (1, 3, 5)]


def test_png_shows_the_mask():
    pixels = decode(draw_png(picture()))
    lasting = (pixels == rgb(LASTING)).all(-1)
    passing = (pixels == rgb(PASSING)).all(-1)
    cell = (CELL - 1) ** 2
    assert (lasting.sum(), passing.sum()) == (5 * cell, cell)
    left, top = np.argwhere(lasting)[:, 1].min(), np.argwhere(lasting)[:, 0].min()
    middle = CELL // 2
    drawn = [[bool(lasting[top + CELL * q + middle, left + CELL * k + middle]) for k in range(4)] for q in range(4)]
    assert drawn == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, False, False],
        [False, False, False, True],
    ]


def test_a_row_of_sixty_tokens_fits():
    count = 60
    slots = Slots(torch.zeros(count).long(), torch.arange(count), torch.full((count,), FOREVER))
    long = Picture("sixty", [f"token{index}" for index in range(count)], slots, {59: "the end"})
    assert max(len(line) for line in draw_text(long).splitlines()) <= 100
    down, across, _ = decode(draw_png(long)).shape
    assert down < 1100
    assert across < 1200


def test_every_ascii_letter_has_a_glyph_of_its_own():
    letters = [chr(code) for code in range(32, 127)]
    assert set(GLYPHS) == {*letters, "…"}
    assert {glyph.shape for glyph in GLYPHS.values()} == {(7, 6)}
    assert len({glyph.tobytes() for glyph in GLYPHS.values()}) == len(GLYPHS)
    assert not any(glyph[:, 5].any() for glyph in GLYPHS.values())


def test_a_canvas_writes_within_its_edges():
    canvas = Canvas(10, 10)
    canvas.write(-3, -3, "HH", "#000000")
    canvas.write_upwards(4, 3, "HH", "#000000")
    canvas.fill(8, 8, 50, 50, "#ff0000")
    assert canvas.pixels[9, 9].tolist() == [255, 0, 0]
    assert (canvas.pixels == 0).any()


def test_letters_upright_and_upwards():
    canvas = Canvas(20, 20)
    canvas.write(0, 0, "L", "#000000")
    assert (canvas.pixels[:7, :6, 0] == 0).tolist() == GLYPHS["L"].tolist()
    turned = Canvas(20, 20)
    turned.write_upwards(0, 20, "L", "#000000")
    assert (turned.pixels[14:, :7, 0] == 0).tolist() == np.rot90(GLYPHS["L"]).tolist()


def test_a_letter_without_a_glyph_is_a_box():
    canvas = Canvas(6, 7)
    canvas.write(0, 0, "电", "#000000")
    assert (canvas.pixels[:, :, 0] == 0).tolist() == UNKNOWN.tolist()
