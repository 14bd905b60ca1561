"""Whether a live object is as desired: desired must be a subset of live.

Comparing subsets leaves room for what the API server and its controllers fill in. Quantities are compared
by value, since the API server writes ``0.5`` as ``500m``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_SUFFIXES = {
    **{f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
    **{prefix: Decimal(1000) ** power for power, prefix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    "m": Decimal("0.001"),
}

#: Maps whose values are quantities.
_QUANTITIES = {"requests", "limits"}


def is_subset(desired: Any, live: Any, *, quantities: bool = False) -> bool:
    """Say whether everything that is desired is in what lives; lists must agree item by item."""
    if desired == live:  # Most of a manifest is: whole templates are passed by one comparison.
        return True
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            is_subset(value, live.get(key), quantities=key in _QUANTITIES or quantities)
            for key, value in desired.items()
            # The API server drops what is empty: {} and absent are the same.
            if not (value in ({}, []) and live.get(key) is None)
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return (
            isinstance(live, Sequence)
            and not isinstance(live, str)
            and len(desired) == len(live)
            and all(is_subset(one, other) for one, other in zip(desired, live, strict=True))
        )
    return quantities and quantity(str(desired)) == quantity(str(live)) is not None


def quantity(text: str) -> Decimal | None:
    """Return the value of a Kubernetes quantity, or None if the text is none."""
    number, factor = text, Decimal(1)
    for suffix, value in _SUFFIXES.items():
        if text.endswith(suffix):
            number, factor = text.removesuffix(suffix), value
            break
    try:
        return Decimal(number) * factor
    except InvalidOperation:
        return None
