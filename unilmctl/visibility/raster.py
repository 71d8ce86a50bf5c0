"""A canvas of pixels with letters, written as PNG: nothing but numpy and zlib."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from unilmctl.visibility.font import GLYPHS, UNKNOWN


class Canvas:
    """`width` x `height` white pixels; x goes right and y goes down, colours are `#rrggbb`."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: NDArray[np.uint8] = np.full((height, width, 3), 255, dtype=np.uint8)

    def fill(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """A filled rectangle whose upper left pixel is (x, y)."""
        self.pixels[max(y, 0) : y + height, max(x, 0) : x + width] = _colour(colour)

    def write(self, x: int, y: int, text: str, colour: str) -> None:
        """Text, six pixels a letter, seven high, whose upper left pixel is (x, y)."""
        self._stamp(x, y, _letters(text), colour)

    def write_upwards(self, x: int, y: int, text: str, colour: str) -> None:
        """Text turned to the left, whose lower left pixel is (x, y): it reads from below."""
        turned = np.rot90(_letters(text))
        self._stamp(x, y - len(turned), turned, colour)

    def png(self) -> bytes:
        """The picture as a PNG file."""
        height, width, _ = self.pixels.shape
        lines = np.concatenate((np.zeros((height, 1), np.uint8), self.pixels.reshape(height, -1)), axis=1)
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = zlib.compress(lines.tobytes(), 9)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")

    def _stamp(self, x: int, y: int, dots: NDArray[np.bool_], colour: str) -> None:
        rows, columns = np.nonzero(dots)
        rows, columns = rows + y, columns + x
        height, width, _ = self.pixels.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        self.pixels[rows[inside], columns[inside]] = _colour(colour)


def _letters(text: str) -> NDArray[np.bool_]:
    """The dots of a text, [7, 6 * letters]."""
    return np.concatenate([np.zeros((7, 0), bool), *(GLYPHS.get(letter, UNKNOWN) for letter in text)], axis=1)


def _colour(name: str) -> tuple[int, int, int]:
    return int(name[1:3], 16), int(name[3:5], 16), int(name[5:7], 16)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
