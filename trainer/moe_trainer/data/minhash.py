"""Which documents are near-duplicates: one-permutation MinHash with locality-sensitive hashing.

A document is the set of its 3-word shingles (words lower-cased, long ones cut to 16 characters). Each
shingle is hashed once; the hash picks one of 128 bins and a 32-bit value, and a bin keeps its smallest
value. An empty bin borrows from the next full one (densification by rotation: Shrivastava and Li,
"Densifying One Permutation Hashing via Rotation", 2014). The share of equal bins estimates the Jaccard
similarity of two documents, with a standard error of at most 0.045.

Candidates share one of 42 bands of 3 bins: at similarity 0.5 a pair is missed with probability 0.4 %.
The signature is part of what a pool stores for ever: changing anything here means a new ``SCHEME``.
"""

import re
from collections import defaultdict
from zlib import crc32

#: Version of the scheme: signature, threshold and splitting rule together.
SCHEME = 1
#: Documents that share this much are one cluster.
THRESHOLD = 0.5

BINS = 128
_ROWS = 3
_BANDS = BINS // _ROWS
_VALUE_BYTES = 4
_SHINGLE_WORDS = 3
_BORROWED_STEP = 0x9E3779B1
_MASK = (1 << 64) - 1
_WORD = re.compile(r"\w{1,16}")


def signature(text: str) -> bytes:
    """Return the 512 bytes that stand for a document: 128 little-endian 32-bit minima."""
    smallest: dict[int, int] = {}
    for shingle in _shingles(text):
        mixed = crc32(shingle.encode()) * 0x9E3779B97F4A7C15 & _MASK
        mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & _MASK
        where, value = mixed >> 57, mixed >> 16 & 0xFFFFFFFF
        if value < smallest.get(where, 1 << 32):
            smallest[where] = value
    return b"".join(value.to_bytes(_VALUE_BYTES, "little") for value in _densified(smallest))


def similarity(left: bytes, right: bytes) -> float:
    """Return the estimated Jaccard similarity of two documents, 0 to 1, from their signatures."""
    pairs = zip(memoryview(left).cast("I"), memoryview(right).cast("I"), strict=True)
    return sum(a == b for a, b in pairs) / BINS


class NearDuplicates:
    """An index of signatures that says which of those added so far resemble another.

    Memory: about 4 KB a document.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._signatures: dict[str, bytes] = {}
        self._bands: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)

    def add(self, name: str, signed: bytes) -> None:
        """Add a document under a name."""
        self._signatures[name] = signed
        for band in _bands(signed):
            self._bands[band].append(name)

    def like(self, signed: bytes) -> list[str]:
        """Return the names of documents whose estimated similarity reaches the threshold, sorted."""
        candidates = {name for band in _bands(signed) for name in self._bands.get(band, ())}
        return sorted(n for n in candidates if similarity(signed, self._signatures[n]) >= self._threshold)


def _shingles(text: str) -> set[str]:
    words = _WORD.findall(text.lower()) or [text]
    if len(words) < _SHINGLE_WORDS:
        return {" ".join(words)}
    return {" ".join(group) for group in zip(words, words[1:], words[2:], strict=False)}


def _densified(smallest: dict[int, int]) -> list[int]:
    """Return a value for every bin: its own, or the next full bin's, offset by the distance to it."""
    values = [0] * BINS
    distance = 0
    for place in range(2 * BINS - 1, -1, -1):  # twice around, so that the last bins see the first
        where = place % BINS
        distance = 0 if where in smallest else distance + 1
        source = smallest.get((where + distance) % BINS, 0)
        values[where] = (source + distance * _BORROWED_STEP) & 0xFFFFFFFF
    return values


def _bands(signed: bytes) -> list[tuple[int, bytes]]:
    width = _ROWS * _VALUE_BYTES
    return [(band, signed[band * width : (band + 1) * width]) for band in range(_BANDS)]
