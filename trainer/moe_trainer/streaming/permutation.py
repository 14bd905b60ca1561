"""A random order of many things without a list of them: which comes at a place is computed.

A Feistel network over an even number of bits, at most four times as many values as there are things; a value
that is none of them is sent through again until one comes out (cycle walking: Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002). Four rounds of a keyed hash mix well enough for an order of training.
"""

from hashlib import blake2b

ROUNDS = 4


class Permutation:
    """The numbers below ``size`` in an order that a key draws."""

    def __init__(self, size: int, key: str) -> None:
        self._size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._key = blake2b(key.encode(), digest_size=16).digest()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: int) -> int:
        """Return the number at a place; raises IndexError outside of 0 to size."""
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
