"""The ConfigMap in which the operator keeps what it observed of a pool's traffic, so that a restart loses nothing."""

import base64
import binascii
from typing import Any

from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.builders.metadata import child_labels, child_metadata
from moe_operator.state import Manifest, Role

_KEY = "traffic"


def observations_name(pool: str) -> str:
    """Return the name of the ConfigMap of a pool."""
    return f"{pool}-observations"


def build_observations(*, pool: ExpertPool, packed: bytes) -> dict[str, Any]:
    """Return the ConfigMap with the packed traffic of a pool (traffic.py says what that is)."""
    name = pool.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(
            name=observations_name(name),
            owner=pool,
            labels=child_labels(pool=name, role=Role.OBSERVATIONS),
        ),
        "binaryData": {_KEY: base64.b64encode(packed).decode()},
    }


def packed_observations(manifest: Manifest) -> bytes:
    """Return the packed traffic in a ConfigMap. Raises ValueError if it holds none."""
    try:
        return base64.b64decode((manifest.get("binaryData") or {})[_KEY], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise ValueError(f"binaryData.{_KEY} is missing or not base64") from None
