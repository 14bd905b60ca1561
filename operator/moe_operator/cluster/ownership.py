"""Decides whether the object that has a name already is the operator's own. What is not is left exactly as it is.

An object is ours if its controlling owner is the one that the desired object names, by its uid. Labels and names do not
count: anybody may copy a label, and an owner of the same name may be another one. A claim has no owner, since it
outlives its pool. It is ours if it has no controlling owner and the labels of the store of a pool of that name. Only
somebody who may write the claim can have put them there, and a pool that is created again finds its claim by them.
"""

from moe_formats.resources import labels
from moe_operator.cluster.resources import controller_of, controller_uid, label_of
from moe_operator.state import Manifest
from moe_operator.subset import is_subset


class NameTaken(Exception):
    """The name of an object to create is taken by an object of another owner or with other inputs."""

    #: Whether that object may be left over from an owner that was deleted without what it owned.
    left_over = False


class LeftOver(NameTaken):
    """The name is taken by an object that has our labels and no owner: anybody can have made it, or it is left over."""

    left_over = True


def check_owner(desired: Manifest, live: Manifest) -> None:
    """Raise NameTaken if the live object is not ours or is being deleted."""
    if not _is_ours(desired, live):
        error = LeftOver if _is_left_over(desired, live) else NameTaken
        raise error(_in_the_way(desired, live))
    if "deletionTimestamp" in live["metadata"]:
        raise NameTaken(f"{_name(live)} is being deleted; it is created again when it is gone")


def check_same(desired: Manifest, live: Manifest) -> None:
    """Raise NameTaken unless the live object was created for the same owner and the same inputs."""
    check_owner(desired, live)
    if _inputs(desired) != _inputs(live):
        raise NameTaken(
            f"{_name(live)} already exists and was created for other inputs: delete it, so that it is created again"
        )


def _is_ours(desired: Manifest, live: Manifest) -> bool:
    owner = controller_uid(desired)
    if owner or controller_uid(live):
        return owner == controller_uid(live)
    return is_subset(desired["metadata"].get("labels") or {}, live["metadata"].get("labels") or {})


def is_orphan(live: Manifest) -> bool:
    """Return whether an object has our label and no controlling owner."""
    return not controller_uid(live) and label_of(live, labels.MANAGED_BY) == labels.FIELD_MANAGER


def _is_left_over(desired: Manifest, live: Manifest) -> bool:
    """Return whether an object may be left over from an earlier owner of that name: it has the labels, and no owner."""
    same = all(label_of(desired, name) == label_of(live, name) for name in (labels.POOL, labels.EXPERT))
    return bool(controller_uid(desired)) and is_orphan(live) and same


def _inputs(manifest: Manifest) -> tuple[str, str]:
    annotations = manifest["metadata"].get("annotations") or {}
    return annotations.get(labels.CONFIG_DIGEST, ""), (manifest.get("spec") or {}).get("inputsDigest", "")


def _in_the_way(desired: Manifest, live: Manifest) -> str:
    """Say which object is in the way, whose it is, and what to do."""
    owner = controller_of(desired)
    wanted = f"{owner.kind} {owner.name}" if owner else f"ExpertPool {label_of(desired, labels.POOL)}"
    whose = "or for another owner"
    if owner is not None and _is_left_over(desired, live):
        whose = f"or is left over from an earlier {wanted} that was deleted with --cascade=orphan"
    return (
        f"{_name(live)} already exists and was created by somebody else {whose}: {_whose(desired, live)}. "
        f"{wanted} needs the name, and nothing was changed in the object that has it. Delete that object, or create it "
        f"under another name: {wanted} goes on by itself then. Or delete {wanted} and create it under another name"
    )


def _whose(desired: Manifest, live: Manifest) -> str:
    owner, tool = controller_of(live), label_of(live, labels.MANAGED_BY)
    if owner is not None:
        return f"it is controlled by {owner.kind} {owner.name} with uid {owner.uid}"
    if tool and tool != labels.FIELD_MANAGER:
        return f"it is managed by {tool}"
    if controller_of(desired) is not None:
        return "it has no controlling owner, as every object would that the operator created under this name"
    return "it does not have the labels of the store of that pool"


def _name(live: Manifest) -> str:
    return f"{live['kind']} {live['metadata']['name']}"
