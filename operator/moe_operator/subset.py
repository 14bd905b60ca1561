"""Compares a desired object with a live one: everything that is desired must also be in the live object.

The live object may have more, since the API server and its controllers fill in fields, and others set labels and
annotations. Only in the maps of ``_OURS_ALONE`` nothing else may be, because nobody fills them in and one more key changes
what they do: a Service with one more label in its selector selects no pod. Quantities are compared by value, since the API
server writes ``0.5`` as ``500m``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

#: Factors that the suffixes of Kubernetes quantities stand for.
_SUFFIXES = {
    **{f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
    **{prefix: Decimal(1000) ** power for power, prefix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    "m": Decimal("0.001"),
}

#: Fields whose values are maps with keys of the operator's only.
_OURS_ALONE = {"selector", "matchLabels", "nodeSelector", "data", "binaryData"}

#: Fields whose values are maps of quantities.
_QUANTITIES = {"requests", "limits"}


def is_as_desired(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Return whether a live object has everything that is desired, and nothing else in the maps that are ours alone."""
    return is_subset(replacement(desired, live), live)


def replacement(desired: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON merge patch that makes ``live`` as desired: null takes a key out of a map that is ours alone."""
    patch = dict(desired)
    for name, there in live.items():
        wanted = desired.get(name)
        if not isinstance(there, Mapping):
            continue
        if name in _OURS_ALONE and (wanted is None or isinstance(wanted, Mapping)):
            ours = wanted or {}
            patch[name] = {**replacement(ours, there), **dict.fromkeys(there.keys() - ours.keys())}
        elif isinstance(wanted, Mapping):
            patch[name] = replacement(wanted, there)
    return patch


def is_subset(desired: Any, live: Any, *, quantities: bool = False) -> bool:
    """Return whether everything that is desired is in ``live``. Lists must have the same length and agree item by item."""
    if desired == live:  # Usually so: whole pod templates need only one comparison.
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
    """Return the value of a Kubernetes quantity; None if the text is not a quantity."""
    number, factor = text, Decimal(1)
    for suffix, value in _SUFFIXES.items():
        if text.endswith(suffix):
            number, factor = text.removesuffix(suffix), value
            break
    try:
        return Decimal(number) * factor
    except InvalidOperation:
        return None
