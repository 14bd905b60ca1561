"""Scheme 1 of signatures and splits as plain loops over everything: what the fast code must agree with."""

import re
from collections.abc import Mapping, Sequence
from zlib import crc32

from moe_formats.job_config import HoldoutRule
from moe_trainer.snapshots.splitting import is_held_out

#: A document: its name and its signature.
Document = tuple[str, bytes]
#: A document's place: its cluster and its side.
Place = tuple[str, bool]


def signature(text: str) -> bytes:
    """Return the 128 minima, each the smallest of its bin or borrowed from the next full one."""
    words = re.findall(r"\w{1,16}", text.lower()) or [text]
    shingles = {" ".join(words[n : n + 3]) for n in range(max(1, len(words) - 2))}
    smallest: dict[int, int] = {}
    for shingle in shingles:
        mixed = crc32(shingle.encode()) * 0x9E3779B97F4A7C15 % 2**64
        mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 % 2**64
        place, value = mixed >> 57, mixed >> 16 & 0xFFFFFFFF
        smallest[place] = min(value, smallest.get(place, value))
    values = []
    for place in range(128):
        distance = next(d for d in range(128) if (place + d) % 128 in smallest)
        values.append((smallest[(place + distance) % 128] + distance * 0x9E3779B1) % 2**32)
    return b"".join(value.to_bytes(4, "little") for value in values)


def similarity(left: bytes, right: bytes) -> float:
    """Return the share of equal bins."""
    return sum(left[n : n + 4] == right[n : n + 4] for n in range(0, 512, 4)) / 128


def alike(left: bytes, right: bytes, threshold: float) -> bool:
    """Return whether two signatures share one of 42 bands of 3 bins and reach the threshold."""
    bands = any(left[n : n + 12] == right[n : n + 12] for n in range(0, 42 * 12, 12))
    return bands and similarity(left, right) >= threshold


def without_near_duplicates(documents: Sequence[Document], threshold: float) -> set[str]:
    """Return the names of those unlike every one that was kept before, smallest name first."""
    kept: list[Document] = []
    for name, signed in sorted(documents):
        if not any(alike(signed, other, threshold) for _, other in kept):
            kept.append((name, signed))
    return {name for name, _ in kept}


def assign(
    fresh: Sequence[Document], known: Mapping[str, tuple[Place, bytes]], rule: HoldoutRule
) -> dict[str, Place]:
    """Return the places of fresh documents: of the known cluster that they resemble, or of a new one."""
    groups: list[tuple[set[str], list[bytes]]] = [({name}, [signed]) for name, (_, signed) in known.items()]
    for name, signed in fresh:
        joined = [g for g in groups if any(alike(signed, other, 0.5) for other in g[1])]
        groups = [g for g in groups if g not in joined]
        groups.append(
            ({name, *(n for g in joined for n in g[0])}, [signed, *(s for g in joined for s in g[1])])
        )
    places: dict[str, Place] = {}
    for names, _ in groups:
        seen = [known[name][0] for name in names if name in known]
        cluster = min(names)[:16]
        place = min(seen, key=lambda p: (not p[1], p[0])) if seen else (cluster, is_held_out(rule, cluster))
        places |= {name: place for name in names if name not in known}
    return places
