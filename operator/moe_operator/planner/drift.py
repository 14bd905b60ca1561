"""What somebody changed or deleted of what the operator made; ``is_subset`` tells."""

import json

from moe_operator.builders.server import PROFILE, TEMPERATURE, TEMPLATE
from moe_operator.state import Manifest
from moe_operator.subset import is_subset, quantity

__all__ = ["frozen", "is_subset", "quantity"]


def frozen(desired: Manifest, live: Manifest | None) -> Manifest:
    """Return ``desired`` with the pod template that ``live`` was made with.

    The template of a served revision never changes: a newer operator would write another one, and servers
    must not restart for that. An edit by hand shows against the template that was recorded, and is undone.
    Only another hardware profile or temperature in the spec makes a new one.
    """
    annotations = ((live or {}).get("metadata") or {}).get("annotations") or {}
    recorded, metadata = annotations.get(TEMPLATE), desired["metadata"]
    asked = metadata["annotations"]
    if recorded is None or any(annotations.get(name) != asked.get(name) for name in (PROFILE, TEMPERATURE)):
        return desired
    metadata = {**metadata, "annotations": {**metadata["annotations"], TEMPLATE: recorded}}
    return {**desired, "metadata": metadata, "spec": {**desired["spec"], "template": json.loads(recorded)}}
