"""The order in which blocks are read: how streams are interleaved, and a random order within a long one.

Interleaving: shares are rounded to thousandths (at least one), and a pattern of at most a thousand places is laid out in
which each stream's places are spread evenly. The pattern repeats, so the k-th block's stream, and how many of its blocks
came before, are known without counting.

Permutation: a Feistel network over an even number of bits, with at most four times as many values as there are things;
a value that is too large is sent through again until one fits (cycle walking: Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002). Four rounds of a keyed hash mix well enough for an order of training.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import gcd

RESOLUTION = 1000


class Interleaving:
    """The pattern for some shares, which must be positive and need not sum to 1."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.quotas = _quotas(shares)
        places = [
            ((2 * turn + 1) / (2 * quota), stream, turn)
            for stream, quota in enumerate(self.quotas)
            for turn in range(quota)
        ]
        self._pattern = [(stream, turn) for _, stream, turn in sorted(places)]

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Return the stream of a block, and the number of blocks of that stream before it."""
        cycle, place = divmod(number, len(self._pattern))
        stream, turn = self._pattern[place]
        return stream, cycle * self.quotas[stream] + turn

    def before(self, number: int) -> list[int]:
        """Return the number of blocks of each stream before a block."""
        cycles, place = divmod(number, len(self._pattern))
        found = [cycles * quota for quota in self.quotas]
        for stream, _ in self._pattern[:place]:
            found[stream] += 1
        return found


def _quotas(shares: Sequence[float]) -> list[int]:
    """Return how many places of the pattern each stream has: by largest remainders, in lowest terms."""
    exact = [RESOLUTION * share / sum(shares) for share in shares]
    quotas = [max(1, int(value)) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda n: int(exact[n]) - exact[n])
    for stream in by_remainder[: max(0, RESOLUTION - sum(quotas))]:
        quotas[stream] += 1
    common = gcd(*quotas)
    return [quota // common for quota in quotas]


ROUNDS = 4


class Permutation:
    """The numbers below ``size`` in a random order that a key determines; none of them is stored."""

    def __init__(self, size: int, key: str) -> None:
        self._size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._key = blake2b(key.encode(), digest_size=16).digest()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: int) -> int:
        """Return the number at a place; raises IndexError unless the place is below ``size``."""
        if not 0 <= place < self._size:
            raise IndexError(place)
        number = self._once(place)
        while number >= self._size:
            number = self._once(number)
        return number

    def _once(self, number: int) -> int:
        mask = (1 << self._half) - 1
        left, right = number >> self._half, number & mask
        for turn in range(ROUNDS):
            mixed = blake2b(right.to_bytes(8, "big"), digest_size=8, key=self._key, salt=bytes([turn]))
            left, right = right, left ^ int.from_bytes(mixed.digest(), "big") & mask
        return left << self._half | right
