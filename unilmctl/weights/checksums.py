"""CRC-32C (Castagnoli), the checksum of TensorFlow's and LevelDB's files, over many stripes at a time.

A checksum is a register that every byte changes linearly (over bits), and zeros in front of the first byte change
nothing. So the data are cut into stripes of equal length, with zeros in front, whose registers advance side by side;
two neighbours are joined by letting the left one read as many zeros as the right one has bytes.

Shapes: N stripes of STRIPE bytes.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

POLYNOMIAL = 0x82F63B78
STRIPE = 512
SHORT = 4096
"""Fewer bytes are looked at one by one."""
PIECE = 1 << 24
"""Bytes looked at together; a power of two, as STRIPE is."""


def _byte_table() -> Words:
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.bitwise_xor(table >> 1, (table & 1) * np.uint32(POLYNOMIAL), dtype=np.uint32)
    return table


BYTES = _byte_table()
ONE_BY_ONE: list[int] = BYTES.tolist()


@cache
def _zeros_read(count: int) -> Words:
    """What each bit of a register becomes when `count`, a power of two, zeros are read: [32] words."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    images: Words = BYTES[bits & 255] ^ (bits >> 8)
    for _ in range(count.bit_length() - 1):
        images = _applied(images, images)
    return images


def _applied(images: Words, registers: Words) -> Words:
    """Registers after a linear change that turns bit k into `images`[k]."""
    changed = np.zeros_like(registers)
    for bit in range(32):
        changed ^= ((registers >> np.uint32(bit)) & 1) * images[bit]
    return changed


def _register(data: NDArray[np.uint8]) -> Words:
    """The register [1] after these bytes, from 0."""
    stripes = 1 << max(0, -(-len(data) // STRIPE) - 1).bit_length()
    padded = np.zeros(stripes * STRIPE, dtype=np.uint8)
    padded[len(padded) - len(data) :] = data
    registers = np.zeros(stripes, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(stripes, STRIPE).T):
        registers = BYTES[(registers ^ column) & 255] ^ (registers >> 8)
    length = STRIPE
    while len(registers) > 1:
        registers = _applied(_zeros_read(length), registers[::2]) ^ registers[1::2]
        length *= 2
    return registers


def crc32c(data: bytes | bytearray) -> int:
    """The checksum of some bytes."""
    if len(data) < SHORT:
        register = 0xFFFFFFFF
        for byte in data:
            register = ONE_BY_ONE[(register ^ byte) & 255] ^ (register >> 8)
        return register ^ 0xFFFFFFFF
    whole = np.frombuffer(data, dtype=np.uint8)
    place = len(whole) % PIECE
    place += PIECE if place < 4 else 0
    first = whole[:place].copy()
    first[:4] ^= 255  # the same as a register that begins with ones
    registers = _register(first)
    zeros = _zeros_read(PIECE)
    for start in range(place, len(whole), PIECE):
        registers = _applied(zeros, registers) ^ _register(whole[start : start + PIECE])
    return int(registers[0]) ^ 0xFFFFFFFF


def unmasked(stored: int) -> int:
    """The checksum that a file stores rotated and shifted, so that a checksum of checksums is none of zeros."""
    turned = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return ((turned >> 17) | (turned << 15)) & 0xFFFFFFFF
