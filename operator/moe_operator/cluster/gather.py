"""Collects everything that a decision may look at, from the cache and the newest answers of pods.

An object that is not valid is an error for its own key only. For all other keys it does not exist.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from moe_formats.job_report import Progress
from moe_formats.resources import labels
from moe_formats.resources.base import CustomResource
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.observe import (
    observed_claim,
    observed_gateway,
    observed_job,
    observed_pod,
    observed_server,
)
from moe_operator.cluster.resources import controller_of, controller_uid, label_of
from moe_operator.state import (
    ExpertState,
    Key,
    Manifest,
    ObservedClaim,
    ObservedGateway,
    ObservedJob,
    ObservedPod,
    ObservedServer,
    PoolState,
    Role,
)

Model = TypeVar("Model", bound=CustomResource)

#: Kinds of objects that the operator creates for an Expert or a pool.
CHILDREN = ("ExpertRevision", "Job", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim")
#: Kinds of the objects that control these children.
OWNERS = ("ExpertPool", "Expert", "ExpertRevision")


@dataclass
class Answers:
    """What running pods answered when they were last asked. ``Probes`` keeps it up to date."""

    #: Progress of training, by uid of the Job.
    progress: dict[str, Progress] = field(default_factory=dict)
    #: Digest of the routing policy that a gateway uses (None: none yet), by uid of the pod.
    policies: dict[str, str | None] = field(default_factory=dict)


def gather_expert(key: Key, cache: Cache, answers: Answers) -> ExpertState | None:
    """Return the state of an Expert; None if it does not exist. Raises ValidationError if it is not valid."""
    manifest = cache.get("Expert", key.namespace, key.name)
    if manifest is None:
        return None
    expert = cache.model(manifest, Expert)
    pool_name = expert.spec.pool
    pool_manifest = cache.get("ExpertPool", key.namespace, pool_name)
    pool = _parsed_or_none(cache, pool_manifest, ExpertPool) if pool_manifest else None
    peers = _parsed(cache, cache.of_pool("Expert", key.namespace, pool_name), Expert)
    pool_revisions = _parsed(cache, cache.of_pool("ExpertRevision", key.namespace, pool_name), ExpertRevision)
    own = _owned_by_expert(cache, key, expert.metadata.uid)
    revisions = [
        pool_revisions[name] for kind, name in own if kind == "ExpertRevision" and name in pool_revisions
    ]
    return ExpertState(
        expert=expert,
        pool=pool,
        peers=peers,
        revisions=tuple(sorted(revisions, key=lambda revision: revision.spec.number)),
        base_revision=_base_revision(expert, peers, pool_revisions),
        jobs=_jobs(cache, (item for (kind, _), item in own.items() if kind == "Job"), answers),
        servers=tuple(
            _server(cache, item)
            for (kind, _), item in own.items()
            if kind == "Deployment" and _is_server(item)
        ),
        live=own,
        claims=_claims(cache, key.namespace, pool, [expert]),
        orphan_pods=_orphan_pods(cache, key),
    )


def gather_pool(key: Key, cache: Cache, answers: Answers) -> PoolState | None:
    """Return the state of a pool; None if it does not exist. Raises ValidationError if it is not valid."""
    manifest = cache.get("ExpertPool", key.namespace, key.name)
    if manifest is None:
        return None
    pool = cache.model(manifest, ExpertPool)
    uid = pool.metadata.uid
    live = {
        (kind, item["metadata"]["name"]): item for kind in CHILDREN for item in cache.of_controller(kind, uid)
    }
    experts = _parsed(cache, cache.of_pool("Expert", key.namespace, key.name), Expert)
    servers = [_server(cache, item) for item in _of_pool(cache, "Deployment", key) if _is_server(item)]
    return PoolState(
        pool=pool,
        experts=experts,
        revisions=_parsed(cache, cache.of_pool("ExpertRevision", key.namespace, key.name), ExpertRevision),
        servers={server.name: server for server in servers},
        jobs=_jobs(cache, _of_pool(cache, "Job", key), answers),
        live=live,
        claims=_claims(cache, key.namespace, pool, experts.values()),
        gateway=_gateway(cache, key, live.values(), answers),
        orphan_snapshots=_orphan_snapshots(cache, key),
    )


def _claims(
    cache: Cache, namespace: str, pool: ExpertPool | None, experts: Iterable[Expert]
) -> dict[str, ObservedClaim]:
    """Return the claims that exist of those that a pool, its evaluators and some Experts name."""
    names = {source.claim for expert in experts for source in expert.spec.data.sources}
    if pool is not None:
        names |= {pool.claim, *(item.claim for item in pool.spec.evaluation.evaluators)}
    found = [cache.get("PersistentVolumeClaim", namespace, name) for name in names if name]
    return {claim.name: claim for claim in (observed_claim(item) for item in found if item is not None)}


def _parsed(cache: Cache, manifests: Iterable[Manifest], type_: type[Model]) -> dict[str, Model]:
    models = {item["metadata"]["name"]: _parsed_or_none(cache, item, type_) for item in manifests}
    return {name: model for name, model in models.items() if model is not None}


def _parsed_or_none(cache: Cache, manifest: Manifest, type_: type[Model]) -> Model | None:
    try:
        return cache.model(manifest, type_)
    except ValueError:
        return None


def _owned_by_expert(cache: Cache, key: Key, uid: str) -> dict[tuple[str, str], Manifest]:
    """Return the children of this Expert and of its revisions; not those of another Expert that had the same name."""
    owners = {uid}
    owners |= {item["metadata"]["uid"] for item in cache.of_controller("ExpertRevision", uid)}
    return {
        (kind, item["metadata"]["name"]): item
        for kind in CHILDREN
        for owner in owners
        for item in cache.of_controller(kind, owner)
    }


def _of_pool(cache: Cache, kind: str, key: Key) -> list[Manifest]:
    """Return the objects of a kind that were made for a pool or its Experts: by their controlling owner, not by labels alone.

    An owner that is gone counts: what it left behind takes up its place until the cluster has deleted it.
    """

    def is_ours(item: Manifest) -> bool:
        owner = controller_of(item)
        if owner is None or owner.kind not in OWNERS:
            return False
        live = cache.get(owner.kind, key.namespace, owner.name)
        if live is None or live["metadata"]["uid"] != owner.uid:
            return True
        return key.name == (owner.name if owner.kind == "ExpertPool" else labels.belongings(live).pool)

    return [item for item in cache.of_pool(kind, key.namespace, key.name) if is_ours(item)]


def _base_revision(
    expert: Expert, peers: Mapping[str, Expert], revisions: Mapping[str, ExpertRevision]
) -> ExpertRevision | None:
    base = peers.get(expert.spec.base.expert or "")
    return revisions.get(base.status.current_revision or "") if base else None


def _jobs(cache: Cache, jobs: Iterable[Manifest], answers: Answers) -> tuple[ObservedJob, ...]:
    observed = [_job(cache, job, answers) for job in jobs if _has_role(job)]
    return tuple(sorted(observed, key=lambda job: (job.created, job.name)))


def _job(cache: Cache, job: Manifest, answers: Answers) -> ObservedJob:
    uid = job["metadata"]["uid"]
    return observed_job(job, cache.of_controller("Pod", uid), answers.progress.get(uid))


def _orphan_pods(cache: Cache, key: Key) -> tuple[ObservedPod, ...]:
    """Return the pods of an Expert's Jobs whose Job is gone. The next attempt waits until they are gone too."""
    pods = [pod for pod in cache.of_expert("Pod", key.namespace, key.name) if not _is_server(pod)]
    jobs = {job["metadata"]["uid"] for job in cache.of_expert("Job", key.namespace, key.name)}
    return tuple(observed_pod(pod) for pod in pods if controller_uid(pod) not in jobs)


def _orphan_snapshots(cache: Cache, key: Key) -> tuple[ObservedPod, ...]:
    """Return the pods of a pool's snapshot Jobs whose Job is gone. The next snapshot waits until they are gone too."""
    pods = cache.of_pool("Pod", key.namespace, key.name)
    jobs = {job["metadata"]["uid"] for job in cache.of_pool("Job", key.namespace, key.name)}
    return tuple(
        observed_pod(pod)
        for pod in pods
        if label_of(pod, labels.ROLE) == Role.SNAPSHOT and controller_uid(pod) not in jobs
    )


def _server(cache: Cache, deployment: Manifest) -> ObservedServer:
    metadata = deployment["metadata"]  # it has the name of its revision
    pods = cache.of_pool("Pod", metadata["namespace"], label_of(deployment, labels.POOL))
    mine = [pod for pod in pods if _is_server(pod) and label_of(pod, labels.REVISION) == metadata["name"]]
    service = cache.get("Service", metadata["namespace"], metadata["name"])
    ours = service is not None and controller_uid(service) == controller_uid(deployment)
    return observed_server(deployment, mine, service=service["metadata"]["uid"] if service and ours else "")


def _gateway(cache: Cache, key: Key, live: Iterable[Manifest], answers: Answers) -> ObservedGateway:
    deployments = [item for item in live if item["kind"] == "Deployment"]
    pods = cache.of_pool("Pod", key.namespace, key.name)
    return observed_gateway(
        next((item for item in deployments if label_of(item, labels.ROLE) == Role.GATEWAY), None),
        [pod for pod in pods if label_of(pod, labels.ROLE) == Role.GATEWAY],
        answers.policies,
    )


def _is_server(manifest: Manifest) -> bool:
    return label_of(manifest, labels.ROLE) == Role.SERVER


def _has_role(job: Manifest) -> bool:
    """Return whether a Job's label says what it is for. If the label was removed, nothing can be said about the Job."""
    return label_of(job, labels.ROLE) in set(Role)
