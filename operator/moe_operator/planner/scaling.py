"""How many replicas a Deployment has. Only what this file returns ever writes that number, through ``/scale``.

Manifests that are applied leave ``replicas`` out, so that applying one never undoes a scaling. A Deployment is made
once somebody wants a replica of it; the API server then starts it with one.
"""

from collections.abc import Mapping

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.state import Manifest, ObjectRef


def replicas_of_servers(expert: Expert) -> int:
    """Return how many servers the revision that should serve needs."""
    return expert.spec.serving.replicas


def replicas_of_gateway(pool: ExpertPool) -> int:
    """Return how many gateways a pool needs."""
    return pool.spec.gateway.replicas


def scaled(
    live: Mapping[tuple[str, str], Manifest], name: str, replicas: int
) -> tuple[tuple[ObjectRef, int], ...]:
    """Return the scaling of a Deployment, or nothing where it is not there or has as many replicas already."""
    deployment = live.get(("Deployment", name))
    if deployment is None or deployment["spec"].get("replicas", 1) == replicas:
        return ()
    metadata = deployment["metadata"]
    reference = ObjectRef("apps/v1", "Deployment", metadata["namespace"], name, metadata["uid"])
    return ((reference, replicas),)
