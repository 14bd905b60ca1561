"""A table of documents without their text, one row each, kept in files: only the disk limits their number.

A row has a name, a signature, and a sketch of the signature. Names and sketches, 48 bytes per document, are mapped into
memory that the system can take back; the 512 bytes of a signature are read when they are needed. Rows are only added.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication.minhash import BANDS, BINS, ROWS, SIGNATURE_BYTES, Signatures

#: Bytes of a name, which is written as 32 hexadecimal digits.
NAME_BYTES = 16
#: Names as bytes, which sort like their digits. numpy strips zeros at the end of an element: use ``digits_of``.
Names = NDArray[np.bytes_]
#: Row numbers.
Rows = NDArray[np.int64]
#: One number for a band of a signature: documents whose numbers differ do not share the band.
Keys = NDArray[np.uint32]
#: Two bits of each of the 128 values of a signature, in four numbers per row: if the bits differ, so do the values.
Sketches = NDArray[np.uint64]

_SKETCH_NUMBERS = 4
_LOW_BITS = np.uint64(0x5555555555555555)
_ROWS_READ = 4096


class _Column:
    """Numbers of one type, one or more per row, in an unnamed temporary file."""

    def __init__(self, kind: str, numbers: int, folder: Path | None) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._kind, self._numbers = np.dtype(kind), numbers
        self._mapped: NDArray[Any] | None = None

    def append(self, values: NDArray[Any]) -> None:
        self.file.seek(0, os.SEEK_END)
        self.file.write(values.tobytes())
        self._mapped = None

    def mapped(self) -> NDArray[Any]:
        """Return the column, mapped from disk. Arrays that were returned earlier keep their length."""
        if self._mapped is None:
            self.file.flush()
            size = self.file.seek(0, os.SEEK_END)
            data = mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
            self._mapped = np.frombuffer(data, dtype=self._kind)
            if self._numbers > 1:
                self._mapped = self._mapped.reshape(-1, self._numbers)
        return self._mapped


class Catalogue:
    """Names and signatures of documents, in temporary files that disappear when the catalogue is closed."""

    def __init__(self, folder: Path | None = None) -> None:
        self._names = _Column(f"S{NAME_BYTES}", 1, folder)
        self._sketches = _Column("<u8", _SKETCH_NUMBERS, folder)
        self._signatures = _Column("<u4", BINS, folder)
        self._rows = 0

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in (self._names, self._sketches, self._signatures):
            column.file.close()

    def __len__(self) -> int:
        return self._rows

    def append(self, names: Names, signatures: Signatures) -> Rows:
        """Add documents and return their rows."""
        self._names.append(names)
        self._sketches.append(_sketched(signatures))
        self._signatures.append(signatures)
        first, self._rows = self._rows, self._rows + len(names)
        return np.arange(first, self._rows)

    @property
    def names(self) -> Names:
        """The names of all rows so far."""
        return self._names.mapped()

    def may_be_alike(self, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
        """Return, by their sketches, which pairs of rows may reach a threshold; no pair that does is missed."""
        sketches = self._sketches.mapped()
        other = sketches[left] ^ sketches[right]
        differ = np.bitwise_count((other | other >> np.uint64(1)) & _LOW_BITS).sum(axis=1, dtype=np.int64)
        possible: NDArray[np.bool_] = (BINS - differ) / BINS >= threshold
        return possible

    def signatures(self, rows: Rows) -> Signatures:
        """Return the signatures of some rows, as an array of rows by 128."""
        self._signatures.file.flush()
        descriptor = self._signatures.file.fileno()
        read = [os.pread(descriptor, SIGNATURE_BYTES, row * SIGNATURE_BYTES) for row in rows.tolist()]
        return np.frombuffer(b"".join(read), dtype="<u4").reshape(-1, BINS)

    def keys(self, rows: Rows, bands: range) -> Keys:
        """Return the keys of some bands for some rows, which must ascend, as an array of bands by rows."""
        keys = np.empty((len(bands), len(rows)), dtype=np.uint32)
        for start in range(0, len(rows), _ROWS_READ):
            some = rows[start : start + _ROWS_READ]
            values = self._between(int(some[0]), int(some[-1]) + 1)[some - some[0]]
            values = values[:, bands.start * ROWS : bands.stop * ROWS].reshape(-1, len(bands), ROWS)
            keys[:, start : start + len(some)] = _mixed(values).T
        return keys

    def _between(self, first: int, end: int) -> Signatures:
        self._signatures.file.flush()
        data = os.pread(
            self._signatures.file.fileno(), (end - first) * SIGNATURE_BYTES, first * SIGNATURE_BYTES
        )
        return np.frombuffer(data, dtype="<u4").reshape(-1, BINS)


def share_a_band(left: Signatures, right: Signatures) -> NDArray[np.bool_]:
    """Return for each pair of signatures whether a whole band of them is equal."""
    equal = (left == right)[:, : BANDS * ROWS]
    in_band = equal[:, ::ROWS].copy()
    for row in range(1, ROWS):
        in_band &= equal[:, row::ROWS]
    shared: NDArray[np.bool_] = in_band.any(axis=1)
    return shared


def no_names() -> Names:
    """Return an empty array of names."""
    return np.empty(0, dtype=f"S{NAME_BYTES}")


def digits_one_by_one(names: NDArray[np.bytes_]) -> Iterator[str]:
    """Yield the digits of names one by one: all of them together may not fit into memory."""
    for start in range(0, len(names), _ROWS_READ):
        yield from digits_of(names[start : start + _ROWS_READ])


def names_of(hexadecimal: Sequence[str]) -> Names:
    """Return the names with some hexadecimal digits."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), dtype=f"S{NAME_BYTES}")


def digits_of(names: NDArray[np.bytes_]) -> list[str]:
    """Return the hexadecimal digits of names, or of shortened names."""
    width = 2 * names.dtype.itemsize
    digits = np.ascontiguousarray(names).tobytes().hex()
    return [digits[start : start + width] for start in range(0, len(digits), width)]


def _sketched(signatures: Signatures) -> Sketches:
    """Return the sketch of each signature."""
    bits = (signatures & 3).astype(np.uint64).reshape(-1, _SKETCH_NUMBERS, BINS // _SKETCH_NUMBERS)
    bits <<= np.arange(0, 64, 2, dtype=np.uint64)
    sketches: Sketches = np.bitwise_or.reduce(bits, axis=2)
    return sketches


def _mixed(values: NDArray[np.uint32]) -> Keys:
    """Return one 32-bit number for the values of each band."""
    mixed = values[..., 0].astype(np.uint64)
    for row in range(1, ROWS):
        mixed = (mixed * np.uint64(0x9E3779B97F4A7C15)) ^ values[..., row]
    return (mixed * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(32)).astype(np.uint32)
