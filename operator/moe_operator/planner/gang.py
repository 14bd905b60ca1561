"""Decides about the Service by which the pods of a training Job on several nodes find one another."""

from moe_operator.builders.gang import build_gang_service, gang_name
from moe_operator.planner.children import repairs
from moe_operator.state import ExpertState, Manifest, ObjectRef


def missing_gang(state: ExpertState) -> tuple[Manifest, ...]:
    """Return the Service if training spans several nodes and it is missing or was changed."""
    if state.expert.spec.training.resources.nodes == 1:
        return ()
    return repairs([build_gang_service(expert=state.expert)], state.live, existed=False, edited=()).apply


def superfluous_gang(state: ExpertState) -> tuple[ObjectRef, ...]:
    """Return the Service if training no longer spans several nodes and the Service is still there."""
    name = gang_name(state.expert)
    live = state.live.get(("Service", name))
    if state.expert.spec.training.resources.nodes > 1 or live is None:
        return ()
    return (ObjectRef("v1", "Service", state.expert.metadata.namespace, name, live["metadata"]["uid"]),)
