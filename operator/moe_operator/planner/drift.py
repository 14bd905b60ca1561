"""What somebody changed or deleted of what the operator made; ``is_subset`` tells."""

import json

from moe_operator.builders.server import PROFILE, TEMPLATE
from moe_operator.state import Manifest
from moe_operator.subset import is_subset, quantity

__all__ = ["frozen", "is_subset", "quantity"]


def frozen(desired: Manifest, live: Manifest | None) -> Manifest:
    """Return ``desired`` with the pod template that ``live`` was made with.

    The template of a served revision never changes: a newer operator would write another one, and servers
    must not restart for that. An edit by hand shows against the template that was recorded, and is undone.
    Only another hardware profile in the spec makes a new one.
    """
    annotations = ((live or {}).get("metadata") or {}).get("annotations") or {}
    recorded, metadata = annotations.get(TEMPLATE), desired["metadata"]
    if recorded is None or annotations.get(PROFILE) != metadata["annotations"][PROFILE]:
        return desired
    metadata = {**metadata, "annotations": {**metadata["annotations"], TEMPLATE: recorded}}
    return {**desired, "metadata": metadata, "spec": {**desired["spec"], "template": json.loads(recorded)}}
