"""What passes between the layers: what was observed, and what should be done about it.

    cluster/gather  -> PoolState, ExpertState ->  planner  -> Plan ->  cluster/apply

Planners and builders are pure: they see these values and a clock, never a client.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from moe_formats.job_report import (
    ComposeHeadline,
    DistillHeadline,
    EvaluateHeadline,
    Failure,
    Progress,
    SnapshotHeadline,
    TrainHeadline,
)
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason

#: A Kubernetes object as the API server speaks it. Only builders make them, only cluster/ sends them.
Manifest = Mapping[str, Any]

AnyHeadline = (
    SnapshotHeadline | TrainHeadline | EvaluateHeadline | DistillHeadline | ComposeHeadline | Failure
)


class Role(StrEnum):
    """What a child object is for; the value of labels.ROLE."""

    SNAPSHOT = "snapshot"
    TRAIN = "train"
    EVALUATE = "evaluate"
    GRADE = "grade"
    DISTILL = "distill"
    SERVER = "server"
    GATEWAY = "gateway"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object by kind and name; with a uid, exactly that one and no namesake."""

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
    #: Why it does not run: the scheduler's or the kubelet's reason and message (Unschedulable, ErrImagePull …).
    waiting: tuple[str, str] | None = None
    exit_code: int | None = None
    exit_reason: str = ""
    #: The termination message of its container.
    message: str = ""
    #: Which container that is: the first, or the init container that kept it from running.
    container: str = ""
    #: Why the kubelet ended the pod as a whole (DeadlineExceeded, Evicted …): reason and message.
    ended: tuple[str, str] | None = None
    #: True for evictions, preemptions and lost nodes (condition DisruptionTarget).
    disrupted: bool = False


@dataclass(frozen=True, slots=True)
class ObservedJob:
    """One Job that the operator made."""

    name: str
    uid: str
    role: Role
    revision: str | None
    created: datetime
    suspended: bool
    state: Literal["Suspended", "Running", "Succeeded", "Failed"]
    deleting: bool = False
    failure: tuple[str, str] | None = None
    pods: tuple[ObservedPod, ...] = ()
    #: The parsed termination message of its newest finished pod; None while there is none or it is unreadable.
    headline: AnyHeadline | None = None
    #: From rank 0's progress port, while a training pod runs.
    progress: Progress | None = None
    #: The Expert it works for (its label); empty for a Job of the pool itself.
    expert: str = ""
    #: When it completed or failed: the time of that condition.
    finished: datetime | None = None
    #: Pods that have to run at once; more than one are a gang.
    width: int = 1


@dataclass(frozen=True, slots=True)
class ObservedServer:
    """The Deployment of one served revision, which has its name."""

    name: str
    uid: str
    desired_replicas: int
    ready_replicas: int
    deleting: bool = False
    pods: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedGateway:
    """The pool's gateway: its Deployment and what each ready pod says."""

    ready_replicas: int = 0
    desired_replicas: int = 0
    #: Pod name to the policy digest it reports; a ready pod that did not answer has None.
    reported: Mapping[str, str | None] = field(default_factory=dict)
    pods: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpertState:
    """All that decisions about one Expert may look at."""

    expert: Expert
    pool: ExpertPool | None
    #: Every Expert of the pool by name, itself included.
    peers: Mapping[str, Expert]
    #: Revisions of this Expert, oldest first (only those whose owner uid is this Expert's).
    revisions: tuple[ExpertRevision, ...]
    #: The promoted revision of the base Expert, if it has one.
    base_revision: ExpertRevision | None
    #: Jobs of this Expert.
    jobs: tuple[ObservedJob, ...]
    servers: tuple[ObservedServer, ...]
    #: Live children to compare with what is desired: (kind, name) to object.
    live: Mapping[tuple[str, str], Manifest]
    #: Pods of this Expert's Jobs that live on although their Job is gone: the next attempt waits for them.
    orphan_pods: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolState:
    """All that decisions about one pool may look at."""

    pool: ExpertPool
    experts: Mapping[str, Expert]
    revisions: Mapping[str, ExpertRevision]
    #: Servers of the pool by the name of their revision.
    servers: Mapping[str, ObservedServer]
    #: Every Job of the pool and of its Experts, finished or not: the pool admits them in order.
    jobs: tuple[ObservedJob, ...]
    live: Mapping[tuple[str, str], Manifest]
    claim_phase: str | None
    gateway: ObservedGateway
    #: Pods of snapshot Jobs that live on although their Job is gone: the next snapshot waits for them.
    orphan_snapshots: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the object under decision; sent after its status is written."""

    reason: Reason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """A status that replaces that of an object, decided on a resourceVersion."""

    target: ObjectRef
    status: Mapping[str, Any]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be done now. Applying it twice does no more than applying it once."""

    #: Made once and never updated: Jobs, ExpertRevisions. 409 is success only with the same owner and inputs.
    create: tuple[Manifest, ...] = ()
    #: Kept as desired by server-side apply: claims, Services, ConfigMaps, Deployments, ServiceAccounts.
    apply: tuple[Manifest, ...] = ()
    #: Jobs to start: suspend becomes false.
    resume: tuple[ObjectRef, ...] = ()
    #: Deployments whose replicas change, through /scale.
    scale: tuple[tuple[ObjectRef, int], ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    statuses: tuple[StatusWrite, ...] = ()
    events: tuple[Event, ...] = ()
    #: Seconds until it should be looked at again, absent where an event will tell.
    requeue: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What the queue holds: one object of a reconciled kind."""

    kind: str
    namespace: str
    name: str
