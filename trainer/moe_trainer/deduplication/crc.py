"""The CRC-32 of every three consecutive words, for all words at once.

A CRC is linear: the CRC of a string is the exclusive or of the contributions of its bytes, each of which depends on the
byte and on how many bytes follow it, and of a number that depends only on the length.

    crc("to be or")  =  the contributions of "to", "be" and "or", the first two advanced past what follows them
                        ^  those of the two spaces  ^  the checksum of eight zero bytes

All tables are computed with zlib's crc32, so the results are those of zlib (tests compare them).
"""

from functools import cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Checksums = NDArray[np.uint32]
Places = NDArray[np.int64]

#: The longest word, in bytes: 16 characters of 4.
LONGEST = 64


def of_shingles(letters: NDArray[np.uint8], length_W: Places) -> Checksums:
    """Return the W - 2 checksums of each word and the two after it, joined by spaces.

    ``letters`` are the bytes of all words one after the other; a word has 1 to LONGEST of them.
    """
    if len(length_W) < 3:
        return np.empty(0, dtype=np.uint32)
    tables = _tables()
    word_W = _added_by_words(letters, length_W, tables.added)
    space_W = tables.added[length_W, ord(" ")]
    pair = _advanced(word_W[:-1], length_W[1:] + 1, tables.advance) ^ space_W[1:] ^ word_W[1:]
    triple = _advanced(pair[:-1], length_W[2:] + 1, tables.advance) ^ space_W[2:] ^ word_W[2:]
    checksums: Checksums = triple ^ tables.of_zeros[length_W[:-2] + length_W[1:-1] + length_W[2:] + 2]
    return checksums


def _added_by_words(letters: NDArray[np.uint8], length_W: Places, added: Checksums) -> Checksums:
    end_W = np.cumsum(length_W, dtype=np.int32)
    following = np.repeat(end_W - 1, length_W) - np.arange(len(letters), dtype=np.int32)
    return np.bitwise_xor.reduceat(added.ravel()[following * 256 + letters], end_W - length_W)


def _advanced(register: Checksums, zeros: Places, advance: Checksums) -> Checksums:
    """Return the registers after ``zeros`` more zero bytes."""
    flat, row = advance.ravel(), zeros * 1024
    moved = flat[row + (register & 255)]
    for byte in (1, 2, 3):
        moved ^= flat[row + (byte * 256 + (register >> np.uint32(8 * byte) & 255))]
    return moved


class _Tables:
    """The contributions of bytes, by the number of bytes that follow."""

    def __init__(self) -> None:
        zeros = [b"\0" * n for n in range(3 * LONGEST + 3)]
        self.of_zeros = np.array([crc32(z) for z in zeros], dtype=np.uint32)
        #: LONGEST + 1 by 256: the contribution of a byte that is followed by so many others.
        self.added = np.array(
            [[crc32(bytes([b]) + z) ^ crc32(b"\0" + z) for b in range(256)] for z in zeros[: LONGEST + 1]],
            dtype=np.uint32,
        )
        #: LONGEST + 2 by 4 by 256: what a byte of a register becomes after so many zero bytes.
        self.advance = np.array(
            [
                [[crc32(z, b << 8 * byte) ^ crc32(z, 0) for b in range(256)] for byte in range(4)]
                for z in zeros[: LONGEST + 2]
            ],
            dtype=np.uint32,
        )


@cache
def _tables() -> _Tables:
    return _Tables()
