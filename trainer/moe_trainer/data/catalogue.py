"""Documents without their text, one row each: names in memory, signatures in a file.

In memory are 48 bytes a document, name and sketch; the 512 of its signature stay on disk, so that disk bounds
how many there may be. Rows are only ever added.
"""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from moe_trainer.data.minhash import BANDS, BINS, ROWS, SIGNATURE_BYTES, Signatures

#: Bytes of a name: 32 hexadecimal digits.
NAME_BYTES = 16
#: Names as bytes, which sort like their digits. Elements lose zeros at the end: use ``hexadecimal``.
Names = NDArray[np.bytes_]
#: Numbers of rows.
Rows = NDArray[np.int64]
#: One number for each band of a signature: documents that differ in it do not share the band.
Keys = NDArray[np.uint32]
#: Two bits of each of the 128 values of a signature, four numbers a row: where they differ, the values do.
Sketches = NDArray[np.uint64]

_SKETCH_NUMBERS = 4
_LOW_BITS = np.uint64(0x5555555555555555)
_ROWS_READ = 4096


class Catalogue:
    """Names and signatures of documents, the latter in a file that is empty at first and closed at the end."""

    def __init__(self, signatures: BinaryIO) -> None:
        self._file = signatures
        self._parts: list[Names] = []
        self._sketch_parts: list[Sketches] = []
        self._rows = 0

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    def append(self, names: Names, signatures: Signatures) -> Rows:
        """Add documents and return their rows."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(signatures.tobytes())
        self._parts.append(names)
        self._sketch_parts.append(_sketched(signatures))
        first, self._rows = self._rows, self._rows + len(names)
        return np.arange(first, self._rows)

    @property
    def names(self) -> Names:
        """The names of all rows."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate([no_names(), *self._parts])]
        return self._parts[0]

    def may_be_alike(self, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
        """Return which pairs of rows may reach a threshold, by their sketches: never false for one that does."""
        if len(self._sketch_parts) != 1:
            self._sketch_parts = [np.concatenate([_sketched(_no_signatures()), *self._sketch_parts])]
        sketches = self._sketch_parts[0]
        other = sketches[left] ^ sketches[right]
        differ = np.bitwise_count((other | other >> np.uint64(1)) & _LOW_BITS).sum(axis=1, dtype=np.int64)
        possible: NDArray[np.bool_] = (BINS - differ) / BINS >= threshold
        return possible

    def signatures(self, rows: Rows) -> Signatures:
        """Return the signatures of some rows: rows by 128."""
        self._file.flush()
        descriptor = self._file.fileno()
        read = [os.pread(descriptor, SIGNATURE_BYTES, row * SIGNATURE_BYTES) for row in rows.tolist()]
        return np.frombuffer(b"".join(read), dtype="<u4").reshape(-1, BINS)

    def keys(self, rows: Rows, bands: range) -> Keys:
        """Return the keys of some bands of some rows, which ascend: bands by rows."""
        keys = np.empty((len(bands), len(rows)), dtype=np.uint32)
        for start in range(0, len(rows), _ROWS_READ):
            some = rows[start : start + _ROWS_READ]
            values = self._between(int(some[0]), int(some[-1]) + 1)[some - some[0]]
            values = values[:, bands.start * ROWS : bands.stop * ROWS].reshape(-1, len(bands), ROWS)
            keys[:, start : start + len(some)] = _mixed(values).T
        return keys

    def _between(self, first: int, end: int) -> Signatures:
        self._file.flush()
        data = os.pread(self._file.fileno(), (end - first) * SIGNATURE_BYTES, first * SIGNATURE_BYTES)
        return np.frombuffer(data, dtype="<u4").reshape(-1, BINS)


def share_a_band(left: Signatures, right: Signatures) -> NDArray[np.bool_]:
    """Return for each pair of signatures whether they are equal in a whole band."""
    equal = (left == right)[:, : BANDS * ROWS]
    in_band = equal[:, ::ROWS].copy()
    for row in range(1, ROWS):
        in_band &= equal[:, row::ROWS]
    shared: NDArray[np.bool_] = in_band.any(axis=1)
    return shared


def no_names() -> Names:
    """Return names of no documents."""
    return np.empty(0, dtype=f"S{NAME_BYTES}")


def names_of(hexadecimal: Sequence[str]) -> Names:
    """Return names, given their digits."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), dtype=f"S{NAME_BYTES}")


def digits_of(names: NDArray[np.bytes_]) -> list[str]:
    """Return the digits of names, or of the first bytes of names."""
    width = 2 * names.dtype.itemsize
    digits = np.ascontiguousarray(names).tobytes().hex()
    return [digits[start : start + width] for start in range(0, len(digits), width)]


def _no_signatures() -> Signatures:
    return np.empty((0, BINS), dtype=np.uint32)


def _sketched(signatures: Signatures) -> Sketches:
    """Return the sketch of each signature."""
    bits = (signatures & 3).astype(np.uint64).reshape(-1, _SKETCH_NUMBERS, BINS // _SKETCH_NUMBERS)
    bits <<= np.arange(0, 64, 2, dtype=np.uint64)
    sketches: Sketches = np.bitwise_or.reduce(bits, axis=2)
    return sketches


def _mixed(values: NDArray[np.uint32]) -> Keys:
    """Return 32 bits for each three values of a band."""
    mixed = values[..., 0].astype(np.uint64)
    for row in range(1, ROWS):
        mixed = (mixed * np.uint64(0x9E3779B97F4A7C15)) ^ values[..., row]
    return (mixed * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(32)).astype(np.uint32)
