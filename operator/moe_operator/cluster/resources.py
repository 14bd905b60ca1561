"""The kinds that the operator reads, and where the API server keeps them."""

from dataclasses import dataclass
from typing import NamedTuple

from moe_formats.resources import labels
from moe_formats.resources.kinds import KINDS
from moe_operator.state import Manifest, ObjectRef


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of objects that live in namespaces."""

    api_version: str
    kind: str
    plural: str
    #: Whether only objects with the operator's label are read.
    owned: bool = True

    @property
    def group(self) -> str:
        """Return the API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Return the version within the group."""
        return self.api_version.rpartition("/")[2]

    @property
    def selector(self) -> str | None:
        """Return the label selector that the operator lists and watches with."""
        return f"{labels.MANAGED_BY}={labels.FIELD_MANAGER}" if self.owned else None

    def shows(self, manifest: Manifest) -> bool:
        """Return whether the operator lists and watches an object of this kind."""
        return not self.owned or label_of(manifest, labels.MANAGED_BY) == labels.FIELD_MANAGER

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection, of an object, or of its subresource."""
        parts = ["/api/v1" if not self.group else f"/apis/{self.api_version}"]
        if namespace:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


#: The custom resources, whoever created them.
CUSTOM = tuple(Resource(labels.API_VERSION, kind.name, kind.plural, owned=False) for kind in KINDS)
JOB = Resource("batch/v1", "Job", "jobs")
POD = Resource("v1", "Pod", "pods")
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
#: What stands between a Deployment and its pods. Only its metadata is kept: it tells whose a pod is.
REPLICA_SET = Resource("apps/v1", "ReplicaSet", "replicasets")
SERVICE = Resource("v1", "Service", "services")
CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps")
#: A pool may use a claim that a person created, so all claims of a namespace are read.
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", owned=False)

#: Everything that is cached and watched.
WATCHED = (
    *CUSTOM,
    JOB,
    POD,
    DEPLOYMENT,
    REPLICA_SET,
    SERVICE,
    CONFIG_MAP,
    CLAIM,
)
_BY_KIND = {resource.kind: resource for resource in WATCHED}

#: Kueue's word about a Job in its queue, in the versions that are served by one Kueue or another, newest first.
WORKLOADS = tuple(
    Resource(f"kueue.x-k8s.io/{version}", "Workload", "workloads", owned=False)
    for version in ("v1beta2", "v1beta1")
)

EVENT = Resource("v1", "Event", "events")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")


def resource_of(kind: str) -> Resource:
    """Return the resource of a kind. Raises KeyError for a kind that the operator does not watch."""
    return _BY_KIND[kind]


def ref_of(manifest: Manifest) -> ObjectRef:
    """Return the reference to an object."""
    metadata = manifest["metadata"]
    return ObjectRef(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
    )


class Controller(NamedTuple):
    """The controlling owner that an object names. Whether there is such an owner, the reference does not prove."""

    kind: str
    name: str
    uid: str


def controller_of(manifest: Manifest) -> Controller | None:
    """Return the object's controlling owner; None if it has none."""
    for owner in manifest["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return Controller(owner["kind"], owner["name"], owner["uid"])
    return None


def controller_uid(manifest: Manifest) -> str:
    """Return the uid of the object's controlling owner; an empty string if it has none."""
    controller = controller_of(manifest)
    return controller.uid if controller is not None else ""


def label_of(manifest: Manifest, name: str) -> str:
    """Return a label of an object; empty if it does not have the label."""
    return str((manifest["metadata"].get("labels") or {}).get(name, ""))
