"""Signatures of documents: one-permutation MinHash of their words, for locality-sensitive hashing.

A document is treated as the set of its 3-word shingles (words in lower case, long ones cut into 16 characters). Each
shingle is hashed once; the hash gives one of 128 bins and a 32-bit value, and each bin keeps its smallest value. An
empty bin borrows from the next one that is not empty (densification by rotation: Shrivastava and Li, "Densifying One
Permutation Hashing via Rotation", 2014). The share of equal bins estimates the Jaccard similarity of two documents,
with a standard error of at most 0.045.

Candidates share one of 42 bands of 3 bins: at similarity 0.5 a pair is missed with probability 0.4 %.
Signatures are stored by pools permanently: changing anything here requires a new scheme (moe_formats/data_scheme.py).
In pools of scheme 2, what is signed is the text in its normal form (text/normal_form.py).

Shapes: N documents, W words of all of them, H shingles, S = 128 bins.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication import crc

#: Documents with at least this similarity belong to one cluster.
THRESHOLD = 0.5

BINS = 128
ROWS = 3
BANDS = BINS // ROWS
SIGNATURE_BYTES = BINS * 4

#: One row per document: 128 little-endian 32-bit minima.
Signatures = NDArray[np.uint32]

_SHINGLE_WORDS = 3
_WORD_CHARACTERS = 16
_WORD = re.compile(rf"\w{{1,{_WORD_CHARACTERS}}}")
_BETWEEN_WORDS = re.compile(r"\W")
_NEAR_END_CHARACTERS = 256
_BORROWED_STEP = 0x9E3779B1
_EMPTY = 1 << 32
#: Characters that are processed at once: more would not stay in a core's cache.
_CHARACTERS_AT_ONCE = 48 * 1024
#: Longer texts are cut: whole, one of 16 MiB would take 40 times its size. Only conversations are so long.
_LONG_CHARACTERS = 4 * _CHARACTERS_AT_ONCE

#: 1 for bytes that belong to words: letters, digits and _ of ASCII, and everything that is not ASCII.
_IS_WORD = bytes(byte >= 128 or chr(byte).isalnum() or chr(byte) == "_" for byte in range(256))


def signature(text: str) -> bytes:
    """Return the 512 bytes of a document's signature."""
    return signatures([text]).tobytes()


def signatures(texts: Sequence[str]) -> Signatures:
    """Return the signatures of documents, N by S."""
    parts, batch, size = [np.empty((0, BINS), dtype=np.uint32)], list[str](), 0
    for text in texts:
        if len(text) > _LONG_CHARACTERS:
            parts += [_signatures(batch), _signature_of_long(text)]
            batch, size = [], 0
            continue
        batch.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            parts.append(_signatures(batch))
            batch, size = [], 0
    return np.concatenate([*parts, _signatures(batch)])


def _signatures(texts: Sequence[str]) -> Signatures:
    document_H, crc_H = _shingles([text.lower() for text in texts])
    shingles_N = np.bincount(document_H, minlength=len(texts))
    short = np.flatnonzero(shingles_N == 0)
    crc_of_short = np.array([_crc_of_short(texts[n]) for n in short.tolist()], dtype=np.uint32)
    smallest_NS = _smallest(
        np.concatenate((document_H, short)), np.concatenate((crc_H, crc_of_short)), len(texts)
    )
    return _densified(smallest_NS)


def _signature_of_long(text: str) -> Signatures:
    """Return what ``_signatures`` returns for one text, in the memory that a part of it takes."""
    smallest_NS = np.full((1, BINS), _EMPTY, dtype=np.uint64)
    for part in _parts(text.lower()):
        np.minimum(smallest_NS, _smallest(*_shingles([part]), 1), out=smallest_NS)
    if (smallest_NS == _EMPTY).all():
        smallest_NS = _smallest(
            np.zeros(1, dtype=np.int64), np.array([_crc_of_short(text)], dtype=np.uint32), 1
        )
    return _densified(smallest_NS)


def _parts(lowered: str) -> Iterator[str]:
    """Cut a text between words; each part begins with the last two words of the one before, so no shingle is lost."""
    start, before = 0, ""
    while start < len(lowered):
        end = _end_of_part(lowered, start)
        part = before + lowered[start:end]
        yield part
        before = "".join(f"{word} " for word in _last_two_words(part))
        start = end


def _end_of_part(lowered: str, start: int) -> int:
    """Return the place behind the last character of a part that belongs to no word."""
    end = start + _CHARACTERS_AT_ONCE
    if end >= len(lowered):
        return len(lowered)
    places = range(end, start, -1)
    # If all of it is a single word, it ends where long words are cut anyway.
    return next((at for at in places if not (lowered[at - 1].isalnum() or lowered[at - 1] == "_")), end)


def _last_two_words(part: str) -> list[str]:
    near_end = part[-_NEAR_END_CHARACTERS:]
    begins = _BETWEEN_WORDS.search(near_end)  # what is before may be the rest of a word
    words = _WORD.findall(near_end, begins.end()) if begins else []
    return words[-2:] if len(words) > 1 else _WORD.findall(part)[-2:]


def _shingles(lowered: Sequence[str]) -> tuple[crc.Places, crc.Checksums]:
    """Return the document of each shingle, and its checksum."""
    letters, document_W, length_W = _words(lowered)
    whole_H = document_W[:-2] == document_W[2:]
    return document_W[:-2][whole_H], crc.of_shingles(letters, length_W)[whole_H]


def _words(lowered: Sequence[str]) -> tuple[NDArray[np.uint8], crc.Places, crc.Places]:
    """Return the bytes of all words one after the other, and for each word its document and its length."""
    encoded = [_as_ascii_or_words(text) for text in lowered]
    data = b"\n".join([b"", *encoded, b""])
    inside = np.frombuffer(data.translate(_IS_WORD), dtype=np.bool_)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    start_W, length_W = edges[::2], edges[1::2] - edges[::2]
    end_N = np.cumsum([len(text) + 1 for text in encoded])
    words_N = np.diff(np.searchsorted(start_W, end_N), prepend=0)
    document_W = np.repeat(np.arange(len(encoded)), words_N)
    is_ascii_N = np.array([text.isascii() for text in encoded])
    return np.frombuffer(data, dtype=np.uint8)[inside], *_cut(document_W, length_W, is_ascii_N[document_W])


def _cut(
    document_W: crc.Places, length_W: crc.Places, is_ascii_W: NDArray[np.bool_]
) -> tuple[crc.Places, crc.Places]:
    """Return the documents and lengths of words after cutting the long ASCII words; the others are cut already."""
    pieces_W = np.where(is_ascii_W, -(-length_W // _WORD_CHARACTERS), 1)
    last_W = np.cumsum(pieces_W) - 1
    cut_W = np.full(pieces_W.sum(), _WORD_CHARACTERS)
    cut_W[last_W] = length_W - (pieces_W - 1) * _WORD_CHARACTERS
    return np.repeat(document_W, pieces_W), cut_W


def _as_ascii_or_words(lowered: str) -> bytes:
    """Return ASCII text as it is, and of any other text only the words, since only `re` knows their letters."""
    return lowered.encode() if lowered.isascii() else " ".join(_WORD.findall(lowered)).encode()


def _crc_of_short(text: str) -> int:
    """Return the checksum of a text of fewer than three words, which counts as one shingle."""
    return crc32(" ".join(_WORD.findall(text.lower()) or [text]).encode())


def _smallest(document_H: NDArray[Any], crc_H: NDArray[np.uint32], documents: int) -> NDArray[np.uint64]:
    """Return the smallest value in each bin, or _EMPTY where there is none, as N by S."""
    mixed_H = crc_H.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed_H = (mixed_H ^ mixed_H >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    bin_H = document_H * BINS + (mixed_H >> np.uint64(57)).astype(np.int64)
    smallest_NS = np.full(documents * BINS, _EMPTY, dtype=np.uint64)
    np.minimum.at(smallest_NS, bin_H, mixed_H >> np.uint64(16) & np.uint64(0xFFFFFFFF))
    return smallest_NS.reshape(documents, BINS)


def _densified(smallest_NS: NDArray[np.uint64]) -> Signatures:
    """Return a value for every bin: its own, or that of the next full bin, offset by the distance to it."""
    place_S = np.arange(BINS)
    full_NS = np.where(smallest_NS != _EMPTY, place_S, 2 * BINS)
    twice = np.concatenate((full_NS, full_NS + BINS), axis=1)  # so that the last bins see the first
    next_NS = np.minimum.accumulate(twice[:, ::-1], axis=1)[:, : BINS - 1 : -1]
    source_NS = np.take_along_axis(smallest_NS, next_NS % BINS, axis=1)
    distance_NS = (next_NS - place_S).astype(np.uint64)
    return (source_NS + distance_NS * np.uint64(_BORROWED_STEP)).astype(np.uint32)
