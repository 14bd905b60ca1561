"""Every permission that the operator needs, and why. ``make generate`` writes the rules of the chart's roles from it.

RBAC knows neither labels nor owners, so a rule holds for all objects of a kind in a namespace, whoever made them. The
admission policy of the chart narrows that to the operator's own objects.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_operator.cluster.resources import (
    CLAIM,
    CONFIG_MAP,
    CUSTOM,
    DEPLOYMENT,
    EVENT,
    JOB,
    LEASE,
    POD,
    REPLICA_SET,
    SERVICE,
    WORKLOADS,
    Resource,
)

#: What it takes to keep a kind in the cache: lists and sweeps, watches, and reading one object again.
READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Permission:
    """What the operator may do with the objects of some kinds in one API group."""

    why: str
    resources: tuple[Resource, ...]
    verbs: tuple[str, ...]
    subresource: str = ""
    #: Names of the only objects that it is for. Empty: all.
    names: tuple[str, ...] = ()

    @property
    def plurals(self) -> tuple[str, ...]:
        """Return the resources as a rule of RBAC names them."""
        suffix = f"/{self.subresource}" if self.subresource else ""
        return tuple(resource.plural + suffix for resource in self.resources)

    def grants(self) -> Iterator[tuple[str, str]]:
        """Yield every pair of a resource and a verb."""
        return ((plural, verb) for plural in self.plurals for verb in self.verbs)


_REVISION = tuple(resource for resource in CUSTOM if resource.kind == "ExpertRevision")
_PROPOSAL = tuple(resource for resource in CUSTOM if resource.kind == "ExpertProposal")
_OF_PEOPLE = tuple(resource for resource in CUSTOM if resource not in (*_REVISION, *_PROPOSAL))

#: In each namespace that the operator acts in.
PERMISSIONS = (
    Permission("Experts and pools belong to people. The operator only reads their specs.", _OF_PEOPLE, READ),
    Permission(
        "Revisions are created, and never changed or deleted: they go with their Expert.",
        _REVISION,
        (*READ, "create"),
    ),
    Permission(
        "Proposals are created, and old ones deleted. The operator never approves one: it lacks the verb `approve`.",
        _PROPOSAL,
        (*READ, "create", "delete"),
    ),
    Permission("Only the operator writes statuses.", CUSTOM, ("patch",), "status"),
    Permission(
        "Jobs read data, train, evaluate, measure, grade and distill. They are created, started by a patch, and deleted when "
        "nothing needs them any more.",
        (JOB,),
        (*READ, "create", "patch", "delete"),
    ),
    Permission("Pods are made by Jobs and Deployments. The operator only reads how they are.", (POD,), READ),
    Permission(
        "Servers and gateways are Deployments, applied as the spec asks. Servers of old revisions are deleted.",
        (DEPLOYMENT,),
        (*READ, "create", "patch", "delete"),
    ),
    Permission(
        "A pod belongs to a Deployment through its ReplicaSet, which is only read.", (REPLICA_SET,), READ
    ),
    Permission("The number of servers and gateways.", (DEPLOYMENT,), ("patch",), "scale"),
    Permission(
        "Each revision that is served, each gateway and each training run on several nodes has a Service. Those of old "
        "revisions and of finished training are deleted.",
        (SERVICE,),
        (*READ, "create", "patch", "delete"),
    ),
    Permission(
        "ConfigMaps hold the routing policies of pools and what was observed of their traffic. They are deleted with their pool.",
        (CONFIG_MAP,),
        (*READ, "create", "patch"),
    ),
    Permission(
        "A pool's claim is created, and never changed or deleted: it holds the weights.",
        (CLAIM,),
        (*READ, "create"),
    ),
    Permission(
        "Events tell people what happened. Equal ones are counted.", (EVENT,), ("get", "create", "patch")
    ),
)

#: In the same namespaces, if Jobs enter a queue of Kueue.
QUEUE_PERMISSIONS = (
    Permission("The Workloads of Kueue say what a Job in the queue waits for.", WORKLOADS[:1], ("list",)),
)


def lease_permissions(name: str) -> tuple[Permission, ...]:
    """Return the permissions in the operator's own namespace, with the Lease ``name``."""
    return (
        Permission("RBAC cannot limit the creation of objects to a name.", (LEASE,), ("create",)),
        Permission(
            "Another release in this namespace that acts in the same namespaces is found by its Lease.",
            (LEASE,),
            ("list",),
        ),
        Permission(
            "Only one operator acts at a time: the holder of this Lease.",
            (LEASE,),
            ("get", "update"),
            names=(name,),
        ),
    )
