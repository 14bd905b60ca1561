"""Kubernetes quantities ("500m", "2Gi") as exact numbers."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_BINARY = {
    suffix: Decimal(1024) ** (power + 1) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse(text: str) -> Decimal:
    """Return the number that a quantity stands for; raises ValueError if it is not a quantity."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a quantity: write for example 500m, 2 or 4Gi")
    number, exponent, suffix = found.groups()
    if exponent:
        return Decimal(number + exponent)
    if suffix in _BINARY:
        return Decimal(number) * _BINARY[suffix]
    return Decimal(number).scaleb(_DECIMAL[suffix or ""])


def in_units_of(text: str, divisor: str) -> int:
    """Return a quantity in units of a divisor, rounded up, as a resourceFieldRef yields it."""
    return math.ceil(parse(text) / (parse(divisor) or 1))
