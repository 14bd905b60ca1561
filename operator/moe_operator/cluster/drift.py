"""Whether a live object is as desired. Pure.

Desired must be a subset of live: the API server adds defaults, other field managers add fields of their
own. What an older version of the operator asked for and this one no longer does is found by the digest of
the manifest that was applied last, which the object carries as an annotation.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from moe_operator.api.labels import GROUP
from moe_operator.state import Manifest
from moe_trainer.formats import canonical_json, digest_of

#: Digest of the manifest that was applied last.
APPLIED = f"{GROUP}/applied"

_QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_SCALE = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
}
_SCALE |= {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}


def stamped(desired: Manifest) -> dict[str, Any]:
    """Return the manifest with its own digest as an annotation."""
    metadata = dict(desired["metadata"])
    annotations = {**(metadata.get("annotations") or {}), APPLIED: digest_of(canonical_json(desired))}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def drifted(desired: Manifest, live: Manifest) -> bool:
    """Return whether a stamped manifest has to be applied again."""
    return not _within(desired, live)


def _within(desired: Any, live: Any) -> bool:
    if live is None:
        return not desired  # Empty, zero and false are left out by the API server.
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            _within(value, live.get(key)) for key, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return isinstance(live, Sequence) and not isinstance(live, str) and _list_within(desired, live)
    return bool(desired == live) or _same_quantity(desired, live)


def _list_within(desired: Sequence[Any], live: Sequence[Any]) -> bool:
    """Compare keyed lists by key, since others may add entries; all other lists entry by entry."""
    key = next((key for key in ("name", "mountPath", "uid", "containerPort") if _keyed(desired, key)), None)
    if desired and key is not None and _keyed(live, key):
        by_key = {item[key]: item for item in live}
        return all(item[key] in by_key and _within(item, by_key[item[key]]) for item in desired)
    return len(desired) == len(live) and all(map(_within, desired, live))


def _keyed(items: Sequence[Any], key: str) -> bool:
    return all(isinstance(item, Mapping) and key in item for item in items)


def _same_quantity(desired: Any, live: Any) -> bool:
    """Compare quantities by value: the API server writes `1000m` as `1`."""
    wanted, found = _quantity(desired), _quantity(live)
    return wanted is not None and wanted == found


def _quantity(value: Any) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(value))
    if isinstance(value, bool) or match is None:
        return None
    try:
        return Decimal(match[1]) * _SCALE.get(match[2] or "", Decimal(1))
    except InvalidOperation:
        return None
