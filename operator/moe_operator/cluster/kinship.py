"""Finds what belongs to an Expert or a pool: by the chain of controlling owners, by uid, and never by labels.

    ExpertPool <- Deployment, Job, ConfigMap      Expert <- ExpertRevision, Job, Deployment      by ownerReferences
    Job <- Pod                                    Deployment <- ReplicaSet <- Pod

Anybody who may create objects in a namespace can set labels, so a label says only which of an object's own kind of
children one is (its role). The uid of an owner that is gone proves nothing either: pods that outlive their Job are
recognised because the cache remembers that Job.
"""

from collections.abc import Iterator

from moe_formats.resources import labels
from moe_operator.builders.pod import JOB_GRACE_SECONDS
from moe_operator.cluster.cache import Cache, Former
from moe_operator.cluster.job_pods import bears_marks
from moe_operator.cluster.resources import controller_of, label_of
from moe_operator.state import Manifest, Role

#: Longest chain: pod, ReplicaSet, Deployment, Expert.
_LONGEST = 4


def owners_of(cache: Cache, manifest: Manifest) -> Iterator[Manifest]:
    """Yield the controlling owner of an object, the owner's own, and so on, as long as they are in the cache."""
    for _ in range(_LONGEST):
        controller = controller_of(manifest)
        if controller is None:
            return
        owner = cache.get(controller.kind, manifest["metadata"]["namespace"], controller.name)
        if owner is None or owner["metadata"]["uid"] != controller.uid:
            return
        yield owner
        manifest = owner


def experts_of(cache: Cache, namespace: str, pool: str) -> dict[str, str]:
    """Return the names of a pool's Experts by uid, including deleted ones, whose children may still be there."""
    former = {item.uid: item.name for item in cache.former_of_pool("Expert", namespace, pool)}
    return former | {
        item["metadata"]["uid"]: str(item["metadata"]["name"])
        for item in cache.of_pool("Expert", namespace, pool)
    }


def pods_of_deployment(cache: Cache, deployment: Manifest) -> list[Manifest]:
    """Return the pods of a Deployment."""
    namespace = deployment["metadata"]["namespace"]
    return [
        pod
        for replica_set in cache.of_controller("ReplicaSet", namespace, deployment["metadata"]["uid"])
        for pod in cache.of_controller("Pod", namespace, replica_set["metadata"]["uid"])
    ]


def gateway_of(cache: Cache, namespace: str, pool_uid: str) -> Manifest | None:
    """Return the Deployment of a pool's gateway; None if there is none."""
    return next(
        (
            item
            for item in cache.of_controller("Deployment", namespace, pool_uid)
            if has_role(item, Role.GATEWAY)
        ),
        None,
    )


def orphans_of(cache: Cache, namespace: str, owner_uid: str) -> list[Manifest]:
    """Return the pods that outlive a deleted Job of an owner."""
    return [
        pod
        for job in cache.former_of_controller("Job", namespace, owner_uid)
        for pod in cache.of_controller("Pod", namespace, job.uid)
    ]


def remember_former_jobs(cache: Cache) -> None:
    """Recognise, once the cache is filled, the pods whose Job was deleted while no operator ran.

    Nothing proves whose such a pod is. It counts if it bears what the Job controller gives to the pods of an Expert of
    ours, if it is already being deleted, and if its grace period is not longer than those of our Jobs. So a pod that only
    pretends to be one delays the next attempt by that grace period at most, and only after a restart.
    """
    for pod in cache.all("Pod"):
        metadata, controller = pod["metadata"], controller_of(pod)
        if controller is None or controller.kind != "Job" or next(owners_of(cache, pod), None) is not None:
            continue
        ending = metadata.get("deletionTimestamp") is not None
        if not ending or metadata.get("deletionGracePeriodSeconds", 0) > JOB_GRACE_SECONDS:
            continue
        expert = cache.get("Expert", metadata["namespace"], label_of(pod, labels.EXPERT))
        if expert is not None and bears_marks(pod, controller.name, controller.uid):
            former = Former(controller.uid, controller.name)
            cache.remember(former, ("Job", metadata["namespace"], expert["metadata"]["uid"]))


def has_role(manifest: Manifest, role: Role) -> bool:
    """Return whether an object's label says that it has a role."""
    return label_of(manifest, labels.ROLE) == role
