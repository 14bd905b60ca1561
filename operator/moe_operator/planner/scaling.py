"""Decides how many replicas each Deployment gets. The number is decided nowhere else.

A Deployment is created with the number of replicas that is needed then. Afterwards the number changes through ``/scale``
only. When the Deployment is applied for another reason, the manifest repeats the number that the live one has, so
that applying never undoes a scaling. (Leaving the number out would reset it to 1: server-side apply removes a field
that the same manager applied before.)
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


def with_replicas(deployment: Manifest, live: Manifest | None, replicas: int) -> Manifest:
    """Return the Deployment to apply: with the replicas of the live one, or with ``replicas`` if there is none yet."""
    applied = live["spec"].get("replicas", 1) if live is not None else replicas
    return {**deployment, "spec": {**deployment["spec"], "replicas": applied}}


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
