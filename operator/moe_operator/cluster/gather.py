"""Collects everything that a decision may look at, from the cache and the newest answers of pods.

An object that is not valid is an error for its own key only. For all other keys it does not exist. What belongs to an
Expert or a pool is decided in ``kinship.py``, and which reports count in ``job_pods.py``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from moe_formats.job_report import Progress
from moe_formats.resources import labels
from moe_formats.resources.base import CustomResource
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.job_pods import job_pods
from moe_operator.cluster.kinship import experts_of, gateway_of, has_role, orphans_of, pods_of_deployment
from moe_operator.cluster.observe import (
    observed_claim,
    observed_gateway,
    observed_job,
    observed_pods,
    observed_server,
)
from moe_operator.cluster.resources import controller_uid, label_of
from moe_operator.state import (
    ExpertState,
    Key,
    Manifest,
    Member,
    ObservedClaim,
    ObservedGateway,
    ObservedJob,
    ObservedServer,
    PoolState,
    ProposalState,
    Role,
)
from moe_operator.traffic import PoolTraffic

Model = TypeVar("Model", bound=CustomResource)

#: Kinds of objects that the operator creates for an Expert or a pool.
CHILDREN = ("ExpertRevision", "Job", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim")


@dataclass
class Answers:
    """What running pods answered when they were last asked. ``Probes`` keeps it up to date."""

    #: Progress of training, by uid of the Job.
    progress: dict[str, Progress] = field(default_factory=dict)
    #: Digest of the routing policy that a gateway uses (None: none yet), by uid of the pod.
    policies: dict[str, str | None] = field(default_factory=dict)
    #: Traffic, by uid of the pool. ``Rounds`` keeps it up to date.
    traffic: dict[str, PoolTraffic] = field(default_factory=dict)
    #: What Jobs in a queue of Kueue wait for, by uid of the Job. ``Workloads`` keeps it up to date.
    waits: dict[str, str] = field(default_factory=dict)


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
    owners = [expert.metadata.uid]
    owners += [
        item["metadata"]["uid"] for item in cache.of_controller("ExpertRevision", key.namespace, owners[0])
    ]
    own = {
        (kind, item["metadata"]["name"]): item
        for kind in CHILDREN
        for item in _owned(cache, kind, key.namespace, owners)
    }
    revisions = _parsed(cache, _owned(cache, "ExpertRevision", key.namespace, owners), ExpertRevision)
    base_line = _base_revisions(cache, expert, peers)
    return ExpertState(
        expert=expert,
        pool=pool,
        peers=peers,
        revisions=tuple(sorted(revisions.values(), key=lambda revision: revision.spec.number)),
        base_revision=_base_revision(expert, peers, base_line),
        base_revisions=base_line,
        proposals=tuple(
            item
            for item in _parsed(
                cache, cache.of_pool("ExpertProposal", key.namespace, pool_name), ExpertProposal
            ).values()
            if item.spec.expert == key.name
        ),
        jobs=_jobs(cache, key.namespace, dict.fromkeys(owners, key.name), answers),
        servers=tuple(_servers(cache, key.namespace, owners)),
        live=own,
        claims=_claims(cache, key.namespace, pool, [expert]),
        traffic=answers.traffic.get(pool.metadata.uid) if pool is not None else None,
        orphan_pods=observed_pods(pod for owner in owners for pod in orphans_of(cache, key.namespace, owner)),
    )


def gather_pool(key: Key, cache: Cache, answers: Answers) -> PoolState | None:
    """Return the state of a pool; None if it does not exist. Raises ValidationError if it is not valid."""
    manifest = cache.get("ExpertPool", key.namespace, key.name)
    if manifest is None:
        return None
    pool = cache.model(manifest, ExpertPool)
    own, experts = [pool.metadata.uid], experts_of(cache, key.namespace, key.name)
    live = {
        (kind, item["metadata"]["name"]): item
        for kind in CHILDREN
        for item in _owned(cache, kind, key.namespace, own)
    }
    members = _parsed(cache, cache.of_pool("Expert", key.namespace, key.name), Expert)
    orphans = (pod for expert in experts for pod in orphans_of(cache, key.namespace, expert))
    return PoolState(
        pool=pool,
        experts=members,
        revisions=_parsed(cache, _owned(cache, "ExpertRevision", key.namespace, experts), ExpertRevision),
        servers={server.name: server for server in _servers(cache, key.namespace, experts)},
        jobs=_jobs(cache, key.namespace, {own[0]: "", **experts}, answers),
        live=live,
        claims=_claims(cache, key.namespace, pool, members.values()),
        gateway=_gateway(cache, key.namespace, pool.metadata.uid, answers),
        traffic=answers.traffic.get(pool.metadata.uid),
        proposals=_parsed(cache, cache.of_pool("ExpertProposal", key.namespace, key.name), ExpertProposal),
        foreign_proposals=frozenset(_foreign_proposals(cache, key)),
        orphan_snapshots=observed_pods(pod for pod in orphans if has_role(pod, Role.SNAPSHOT)),
    )


def gather_proposal(key: Key, cache: Cache, answers: Answers) -> ProposalState | None:
    """Return the state of a proposal; None if it does not exist. Raises ValidationError if it is not valid."""
    manifest = cache.get("ExpertProposal", key.namespace, key.name)
    if manifest is None:
        return None
    proposal = cache.model(manifest, ExpertProposal)
    name = proposal.spec.pool
    pool_manifest = cache.get("ExpertPool", key.namespace, name)
    pool = _parsed_or_none(cache, pool_manifest, ExpertPool) if pool_manifest else None
    others = _parsed(cache, cache.of_pool("ExpertProposal", key.namespace, name), ExpertProposal)
    return ProposalState(
        proposal=proposal,
        pool=pool,
        member=_member(proposal, pool, cache, answers) if pool is not None else None,
        others=tuple(item for other, item in others.items() if other != key.name),
    )


def _member(proposal: ExpertProposal, pool: ExpertPool, cache: Cache, answers: Answers) -> Member | None:
    """Return the Expert that a proposal is about; None if the pool has no Expert of that name that stays."""
    peers = _parsed(cache, cache.of_pool("Expert", pool.metadata.namespace, pool.metadata.name), Expert)
    expert = peers.get(proposal.spec.expert)
    if expert is None or expert.metadata.deletion_timestamp is not None:
        return None
    line = _base_revisions(cache, expert, peers)
    own = _revisions(cache, expert).values()
    return Member(
        expert=expert,
        pool=pool,
        revisions=tuple(sorted(own, key=lambda revision: revision.spec.number)),
        base_revisions=line,
        base_revision=_base_revision(expert, peers, line),
        traffic=answers.traffic.get(pool.metadata.uid),
    )


def _foreign_proposals(cache: Cache, key: Key) -> Iterator[str]:
    """Yield the names of the proposals in a pool's namespace that are about other pools."""
    for item in cache.all("ExpertProposal"):
        metadata = item["metadata"]
        if metadata["namespace"] == key.namespace and labels.belongings(item).pool != key.name:
            yield metadata["name"]


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


def _owned(cache: Cache, kind: str, namespace: str, owners: Iterable[str]) -> list[Manifest]:
    """Return the objects of a kind that are controlled by one of some owners, given by uid."""
    return [item for owner in owners for item in cache.of_controller(kind, namespace, owner)]


def _base_revisions(cache: Cache, expert: Expert, peers: Mapping[str, Expert]) -> dict[str, ExpertRevision]:
    """Return the revisions of the Expert's base by name, those that are really the base's own."""
    base = peers.get(expert.spec.base.expert or "")
    return _revisions(cache, base) if base is not None else {}


def _revisions(cache: Cache, expert: Expert) -> dict[str, ExpertRevision]:
    metadata = expert.metadata
    return _parsed(cache, _owned(cache, "ExpertRevision", metadata.namespace, [metadata.uid]), ExpertRevision)


def _base_revision(
    expert: Expert, peers: Mapping[str, Expert], line: Mapping[str, ExpertRevision]
) -> ExpertRevision | None:
    """Return the current revision of the Expert's base."""
    base = peers.get(expert.spec.base.expert or "")
    return line.get(base.status.current_revision or "") if base is not None else None


def _jobs(
    cache: Cache, namespace: str, owners: Mapping[str, str], answers: Answers
) -> tuple[ObservedJob, ...]:
    """Return the Jobs of owners, given by uid with the name of the Expert that their Jobs work for."""
    observed = []
    for owner, expert in owners.items():
        for job in cache.of_controller("Job", namespace, owner):
            with confined(job, "reading it"):
                if _has_known_role(job):
                    observed.append(_job(cache, job, expert, answers))
    return tuple(sorted(observed, key=lambda job: (job.created, job.name)))


def _job(cache: Cache, job: Manifest, expert: str, answers: Answers) -> ObservedJob:
    namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
    pods = job_pods(job, cache.of_controller("Pod", namespace, uid))
    progress, waits = answers.progress.get(uid), answers.waits.get(uid, "")
    return observed_job(job, pods, progress, expert=expert, waits=waits)


def _servers(cache: Cache, namespace: str, experts: Iterable[str]) -> Iterator[ObservedServer]:
    """Yield the servers of Experts, given by uid."""
    for deployment in _owned(cache, "Deployment", namespace, experts):
        if has_role(deployment, Role.SERVER):
            with confined(deployment, "reading it"):
                yield _server(cache, deployment)


def _server(cache: Cache, deployment: Manifest) -> ObservedServer:
    metadata = deployment["metadata"]  # it has the name of its revision
    service = cache.get("Service", metadata["namespace"], metadata["name"])
    ours = service is not None and controller_uid(service) == controller_uid(deployment)
    return observed_server(
        deployment,
        pods_of_deployment(cache, deployment),
        service=service["metadata"]["uid"] if service and ours else "",
    )


def _gateway(cache: Cache, namespace: str, pool_uid: str, answers: Answers) -> ObservedGateway:
    deployment = gateway_of(cache, namespace, pool_uid)
    pods = pods_of_deployment(cache, deployment) if deployment is not None else []
    return observed_gateway(deployment, pods, answers.policies)


def _has_known_role(job: Manifest) -> bool:
    """Return whether a Job's label says what it is for. If the label was removed, nothing can be said about the Job."""
    return label_of(job, labels.ROLE) in set(Role)
