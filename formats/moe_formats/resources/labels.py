"""The API group, labels and annotations of objects, and the operator's field manager."""

from collections.abc import Mapping
from typing import Any, NamedTuple

GROUP = "moe-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "moe"

#: Field manager of everything that the operator applies.
FIELD_MANAGER = "moe-operator"

#: Label of every child, by which the operator finds it. The value is FIELD_MANAGER.
MANAGED_BY = "app.kubernetes.io/managed-by"

POOL = f"{GROUP}/pool"
EXPERT = f"{GROUP}/expert"
REVISION = f"{GROUP}/revision"
#: What a child is for: snapshot, train, evaluate, grade, drift, matrix, distill, server, gateway, store, observations.
ROLE = f"{GROUP}/role"
#: Label of a Job or a revision: the first 16 hexadecimal digits of the digest of its inputs.
INPUTS = f"{GROUP}/inputs"

#: Label of a PersistentVolumeClaim, by which those who may change it let Experts and pools of its namespace use it:
#: `source` to be read, `store` to be written as a pool's store.
USE = f"{GROUP}/use"

#: Annotation of a Job: the digest of the JobConfig that it was created with.
CONFIG_DIGEST = f"{GROUP}/config-digest"

#: Label with the Kueue queue of a Job. A Job gets it when the pool lets it start. Then Kueue starts it.
QUEUE = "kueue.x-k8s.io/queue-name"

#: Annotation of a Job: what took a pod of it away, as the operator saw it before the pod was gone.
TAKEN = f"{GROUP}/taken"


class Belongings(NamedTuple):
    """The pool and the Expert that an object says it belongs to, by name; empty where it names none."""

    pool: str
    expert: str


def belongings(manifest: Mapping[str, Any]) -> Belongings:
    """Return what an object says it belongs to: custom resources say so in their spec, children in their labels."""
    custom = manifest.get("apiVersion") == API_VERSION
    said = (manifest.get("spec") if custom else manifest["metadata"].get("labels")) or {}
    pool, expert = ("pool", "expert") if custom else (POOL, EXPERT)
    return Belongings(str(said.get(pool, "")), str(said.get(expert, "")))
