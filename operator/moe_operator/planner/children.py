"""Finds the objects that have to be applied because they are missing or were changed, and the events to send about them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from moe_formats.resources.reasons import Reason
from moe_operator.builders.gang import build_gang_service, gang_name
from moe_operator.state import Event, ExpertState, Manifest, ObjectRef
from moe_operator.subset import is_as_desired


@dataclass(frozen=True)
class Repairs:
    """Objects to apply, and events about them."""

    apply: tuple[Manifest, ...] = ()
    events: tuple[Event, ...] = ()


def repairs(
    desired: Iterable[Manifest],
    live: Mapping[tuple[str, str], Manifest],
    *,
    existed: bool,
    edited: Collection[str],
) -> Repairs:
    """Return the desired objects that are missing or differ from the live ones.

    ``existed`` says whether all of them existed before: a missing one was then deleted by somebody, and an event says so.
    ``edited`` names the kinds whose inputs have not changed: if an object of these kinds differs, somebody edited it, and
    an event says so.
    """
    apply, events = [], []
    for manifest in desired:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        there = live.get((kind, name))
        if there is not None and is_as_desired(manifest, there):
            continue
        apply.append(manifest)
        if there is None and existed:
            events.append(
                Event(Reason.CHILD_RESTORED, f"{kind} {name} was deleted and is created again", "Warning")
            )
        elif there is not None and kind in edited:
            events.append(
                Event(Reason.CHILD_EDITED, f"{kind} {name} was changed and is changed back", "Warning")
            )
    return Repairs(tuple(apply), tuple(events))


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
