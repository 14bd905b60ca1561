"""The values that pass between the layers: what was observed, and what should be done about it.

    cluster/gather  -> PoolState, ExpertState ->  planner  -> Plan ->  cluster/apply

Planners and builders are pure: they see these values and the time, but never a client of the API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from moe_formats.job_report import AnyHeadline, Progress
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_operator.traffic import PoolTraffic

#: A Kubernetes object as JSON. Only builders make manifests, and only cluster/ sends them.
Manifest = Mapping[str, Any]


class Role(StrEnum):
    """What a child object is for: the value of its label ``labels.ROLE``."""

    SNAPSHOT = "snapshot"
    TRAIN = "train"
    EVALUATE = "evaluate"
    GRADE = "grade"
    DRIFT = "drift"
    MATRIX = "matrix"
    DISTILL = "distill"
    SERVER = "server"
    GATEWAY = "gateway"
    STORE = "store"
    OBSERVATIONS = "observations"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A reference to an object by kind and name. With a uid, it means only the object that has that uid.

    References of a plan to objects that exist always have one.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """One pod of a child, reduced to what decisions need."""

    name: str
    uid: str
    phase: str
    ready: bool
    created: datetime
    deleting: bool = False
    #: Why it does not run: reason and message of the scheduler or the kubelet (Unschedulable, ErrImagePull …).
    waiting: tuple[str, str] | None = None
    #: How ``container`` ended, now or before its last restart; None while it never has.
    exit_code: int | None = None
    exit_reason: str = ""
    #: The termination message of ``container``.
    message: str = ""
    #: The container whose state stands for the pod: the first, or the init container that keeps it from running.
    container: str = ""
    #: Why the kubelet ended the pod as a whole (DeadlineExceeded, Evicted …): reason and message.
    ended: tuple[str, str] | None = None
    #: Whether it was evicted, preempted or lost with its node (condition DisruptionTarget).
    disrupted: bool = False
    #: Whether its node does not report, so that nobody knows how it is. It may go on.
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ObservedJob:
    """One Job that the operator created."""

    name: str
    uid: str
    role: Role
    created: datetime
    suspended: bool
    state: Literal["Suspended", "Running", "Succeeded", "Failed"]
    deleting: bool = False
    #: Reason and message of its condition Failed, if it has failed.
    failure: tuple[str, str] | None = None
    pods: tuple[ObservedPod, ...] = ()
    #: What its pods reported in their termination messages; None while nothing was reported or can be read.
    headline: AnyHeadline | None = None
    #: Why reports of its pods are not believed, as a sentence; None if they are.
    doubt: str | None = None
    #: What rank 0 of a running training Job answered on its progress port.
    progress: Progress | None = None
    #: Name of the Expert that it works for; empty for a Job of the pool itself.
    expert: str = ""
    #: The Kueue queue that decides when it runs; empty if it has not been put into one.
    queue: str = ""
    #: What Kueue says that it waits for in its queue; empty if Kueue says nothing, or cannot be asked.
    waits: str = ""
    #: When the Job controller began to create pods for it; None while it is suspended.
    started: datetime | None = None
    #: When it was suspended last, if it had been started before.
    interrupted: datetime | None = None
    #: How often it was suspended after it had been started.
    turns: int = 0
    #: When it completed or failed, by its condition.
    finished: datetime | None = None
    #: Number of pods that have to run at the same time. If there are several, they are a gang.
    width: int = 1
    #: Seconds that a pod of it may run; None for a Job of an operator that set no such limit.
    deadline: int | None = None
    #: What took a pod of it away, as a sentence, by its annotation or its condition Failed; empty if neither says so.
    taken: str = ""


@dataclass(frozen=True, slots=True)
class ObservedServer:
    """The Deployment of one revision's servers. Its name is the name of the revision."""

    name: str
    uid: str
    desired_replicas: int
    ready_replicas: int
    deleting: bool = False
    pods: tuple[ObservedPod, ...] = ()
    #: Why the cluster creates no pods for it, in its own words; empty if it does.
    refused: str = ""
    #: Uid of its Service; empty if it has none, or if the Service of that name belongs to somebody else.
    service: str = ""


@dataclass(frozen=True, slots=True)
class ObservedGateway:
    """The pool's gateway: its Deployment, and the policy that each of its ready pods uses."""

    ready_replicas: int = 0
    desired_replicas: int = 0
    #: For each ready pod, by name: the digest of the policy that it reports; None if it has not answered.
    reported: Mapping[str, str | None] = field(default_factory=dict)
    pods: tuple[ObservedPod, ...] = ()
    #: Why the cluster creates no pods for it, in its own words; empty if it does.
    refused: str = ""


@dataclass(frozen=True, slots=True)
class ObservedClaim:
    """A PersistentVolumeClaim that an Expert or a pool names: its phase, and what it may be used for."""

    name: str
    #: For example ``Bound``.
    phase: str
    #: Value of its label ``labels.USE``; empty if it has none.
    use: str = ""
    #: Name of the pool that the operator made it for; empty if somebody else made it.
    made_for: str = ""


@dataclass(frozen=True, slots=True)
class ExpertState:
    """Everything that decisions about one Expert may look at."""

    expert: Expert
    pool: ExpertPool | None
    #: Every Expert of the pool by name, including this one.
    peers: Mapping[str, Expert]
    #: Revisions of this Expert, oldest first; not those of an earlier Expert with the same name.
    revisions: tuple[ExpertRevision, ...]
    #: The current revision of the base Expert; None while it has none, or if the base is not an Expert.
    base_revision: ExpertRevision | None
    #: Jobs of this Expert.
    jobs: tuple[ObservedJob, ...]
    #: Servers of this Expert's revisions.
    servers: tuple[ObservedServer, ...]
    #: Live children by kind and name, to compare with what is desired.
    live: Mapping[tuple[str, str], Manifest]
    #: By name, the claims that exist of those that the Expert, its pool and the pool's evaluators name.
    claims: Mapping[str, ObservedClaim]
    #: What was observed of its pool's traffic; None while nothing was.
    traffic: PoolTraffic | None = None
    #: Proposals about this Expert, of people and of the operator.
    proposals: tuple[ExpertProposal, ...] = ()
    #: Revisions of the base Expert by name; empty if the base is not an Expert.
    base_revisions: Mapping[str, ExpertRevision] = field(default_factory=dict)
    #: Pods of this Expert's Jobs whose Job is gone. The next attempt waits until they are gone too.
    orphan_pods: tuple[ObservedPod, ...] = ()
    #: Revision that is to be the current one, instead of the one that the status names; None if nothing moves.
    moved_to: str | None = None

    @property
    def pointer(self) -> str | None:
        """Name of the revision that is current, if it is promoted; None if none is named."""
        return self.moved_to or self.expert.status.current_revision


@dataclass(frozen=True, slots=True)
class PoolState:
    """Everything that decisions about one pool may look at."""

    pool: ExpertPool
    #: Experts of the pool by name.
    experts: Mapping[str, Expert]
    #: Revisions of all Experts of the pool by name.
    revisions: Mapping[str, ExpertRevision]
    #: Servers of all Experts of the pool by name of the revision.
    servers: Mapping[str, ObservedServer]
    #: Every Job of the pool and of its Experts, finished or not. The pool decides which of them start.
    jobs: tuple[ObservedJob, ...]
    #: Live children of the pool itself by kind and name, to compare with what is desired.
    live: Mapping[tuple[str, str], Manifest]
    #: By name, the claims that exist of those that the pool, its evaluators and its Experts name.
    claims: Mapping[str, ObservedClaim]
    gateway: ObservedGateway
    #: What was observed of the pool's traffic; None while nothing was.
    traffic: PoolTraffic | None = None
    #: Proposals about Experts of the pool by name, of people and of the operator.
    proposals: Mapping[str, ExpertProposal] = field(default_factory=dict)
    #: Names of proposals in the namespace that are about other pools.
    foreign_proposals: frozenset[str] = frozenset()
    #: Pods of snapshot Jobs whose Job is gone. The next snapshot waits until they are gone too.
    orphan_snapshots: tuple[ObservedPod, ...] = ()

    @property
    def claim_phase(self) -> str | None:
        """Phase of the claim that is the pool's store; None if it does not exist."""
        claim = self.claims.get(self.pool.claim)
        return claim.phase if claim is not None else None


@dataclass(frozen=True, slots=True)
class Member:
    """One Expert of a pool, with what may be looked at to decide whether something should be done with it."""

    expert: Expert
    pool: ExpertPool
    #: Its own revisions, oldest first.
    revisions: tuple[ExpertRevision, ...]
    #: Revisions of its base Expert by name; empty if the base is no Expert of the pool.
    base_revisions: Mapping[str, ExpertRevision]
    #: The current revision of its base Expert; None while it has none, or if the base is not an Expert.
    base_revision: ExpertRevision | None
    #: What was observed of the pool's traffic; None while nothing was.
    traffic: PoolTraffic | None = None

    @property
    def pointer(self) -> str | None:
        """Name of the revision that is current, if it is promoted; None if none is named."""
        return self.expert.status.current_revision


@dataclass(frozen=True, slots=True)
class ProposalState:
    """Everything that decisions about one proposal may look at."""

    proposal: ExpertProposal
    pool: ExpertPool | None
    #: The Expert that it is about; None if the pool or the Expert does not exist.
    member: Member | None
    #: The other proposals about Experts of the pool.
    others: tuple[ExpertProposal, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the object that a plan is for. It is sent after the object's status is written."""

    reason: Reason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """A status that replaces the one of an object, unless the object is no longer at the resourceVersion."""

    target: ObjectRef
    status: Mapping[str, Any]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be done now. Applying it twice does no more than applying it once."""

    #: Objects that are created once and never updated: Jobs, ExpertRevisions and claims. If one already exists, that is a
    #: success only if it has the same owner and the same inputs; for a claim, which has no owner, the same labels.
    create: tuple[Manifest, ...] = ()
    #: Objects that are kept as desired, by server-side apply: Services, ConfigMaps and Deployments.
    apply: tuple[Manifest, ...] = ()
    #: Jobs to start, by setting suspend to false.
    resume: tuple[ObjectRef, ...] = ()
    #: Jobs to stop for now, by setting suspend to true, which deletes their pods.
    suspend: tuple[ObjectRef, ...] = ()
    #: Jobs with annotations to add.
    annotate: tuple[tuple[ObjectRef, Mapping[str, str]], ...] = ()
    #: Jobs to put into a queue of Kueue, by a label with its name.
    enqueue: tuple[tuple[ObjectRef, str], ...] = ()
    #: Deployments with their new number of replicas, which is written through /scale.
    scale: tuple[tuple[ObjectRef, int], ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    statuses: tuple[StatusWrite, ...] = ()
    events: tuple[Event, ...] = ()
    #: Seconds until the object has to be planned again even if nothing changes; None if that is not necessary.
    requeue: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One object of a reconciled kind, as the queue holds it."""

    kind: str
    namespace: str
    name: str
