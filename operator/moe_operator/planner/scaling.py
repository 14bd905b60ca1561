"""How many replicas a Deployment has: the only place where that number is decided.

A Deployment is created with the number that is wanted then. Afterwards the number changes through ``/scale`` only;
whoever applies the Deployment for another reason repeats the number that it has, so that applying never undoes a
scaling. (Leaving the number out would reset it to 1, since the operator's earlier apply owns the field.)
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


def with_replicas(deployment: Manifest, live: Manifest | None, wanted: int) -> Manifest:
    """Return a Deployment to apply, with the replicas that the live one has, or with those wanted if there is none."""
    replicas = live["spec"].get("replicas", 1) if live is not None else wanted
    return {**deployment, "spec": {**deployment["spec"], "replicas": replicas}}


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
