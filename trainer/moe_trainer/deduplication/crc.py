"""The CRC-32 of every three words in a row, for all words at once.

A CRC is linear: that of a string is the exclusive or of what each of its bytes adds, which depends on the
byte and on how many follow it, and of a number that depends on the length alone.

    crc("to be or")  =  what "to", "be" and "or" add, the first two advanced past what follows them
                        ^  what two spaces add there  ^  the checksum of eight zero bytes

All tables are made from zlib's crc32, so that is what it computes (tests compare them).
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
    """Return the CRC-32 of each word, the next and the one after, joined by spaces: W - 2 of them.

    ``letters`` are the bytes of all words in a row; a word has 1 to LONGEST.
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
    """Return what registers become when so many zero bytes follow."""
    flat, row = advance.ravel(), zeros * 1024
    moved = flat[row + (register & 255)]
    for byte in (1, 2, 3):
        moved ^= flat[row + (byte * 256 + (register >> np.uint32(8 * byte) & 255))]
    return moved


class _Tables:
    """What bytes add, by the number of bytes that follow."""

    def __init__(self) -> None:
        zeros = [b"\0" * n for n in range(3 * LONGEST + 3)]
        self.of_zeros = np.array([crc32(z) for z in zeros], dtype=np.uint32)
        #: LONGEST + 1 by 256: what a byte adds, before so many others.
        self.added = np.array(
            [[crc32(bytes([b]) + z) ^ crc32(b"\0" + z) for b in range(256)] for z in zeros[: LONGEST + 1]],
            dtype=np.uint32,
        )
        #: LONGEST + 2 by 4 by 256: what a byte of a register becomes after so many zeros.
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
