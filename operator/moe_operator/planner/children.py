"""What has to be applied because it is missing or was changed, and what is worth telling of that."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from moe_formats.resources.reasons import Reason
from moe_operator.state import Event, Manifest
from moe_operator.subset import is_subset


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
    """Return the desired objects that are missing or differ.

    ``existed`` says that they were all there before, so that a missing one was deleted by somebody. ``edited`` are
    the kinds of which a difference can only be somebody's edit, since nothing that the operator reads has changed.
    """
    apply, events = [], []
    for manifest in desired:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        there = live.get((kind, name))
        if there is not None and is_subset(manifest, there):
            continue
        apply.append(manifest)
        if there is None and existed:
            events.append(
                Event(Reason.CHILD_RESTORED, f"{kind} {name} was gone and is made again", "Warning")
            )
        elif there is not None and kind in edited:
            events.append(Event(Reason.CHILD_EDITED, f"{kind} {name} was changed and is put back", "Warning"))
    return Repairs(tuple(apply), tuple(events))
