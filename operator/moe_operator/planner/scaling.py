"""Decides how many replicas each Deployment gets. The number is written only from here, through ``/scale``.

Manifests that are applied leave ``replicas`` out, so that applying one never undoes a scaling. A Deployment is created
when the first replica of it is needed. The API server then gives it one replica, and the next pass scales it.
"""

from collections.abc import Mapping

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.state import Manifest, ObjectRef


def replicas_of_servers(expert: Expert) -> int:
    """Return how many servers each revision of an Expert gets that should serve or is starting."""
    return expert.spec.serving.replicas


def replicas_of_gateway(pool: ExpertPool) -> int:
    """Return how many gateways a pool gets."""
    return pool.spec.gateway.replicas


def scaled(
    live: Mapping[tuple[str, str], Manifest], name: str, replicas: int
) -> tuple[tuple[ObjectRef, int], ...]:
    """Return the Deployment ``name`` with its new number of replicas; nothing if it has that number or does not exist."""
    deployment = live.get(("Deployment", name))
    if deployment is None or deployment["spec"].get("replicas", 1) == replicas:
        return ()
    metadata = deployment["metadata"]
    reference = ObjectRef("apps/v1", "Deployment", metadata["namespace"], name, metadata["uid"])
    return ((reference, replicas),)
