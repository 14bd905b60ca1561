"""Names that objects carry: the API group, labels, annotations, the field manager."""

from collections.abc import Mapping
from typing import Any, NamedTuple

GROUP = "moe-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "moe"

#: The one field manager of everything that the operator applies.
FIELD_MANAGER = "moe-operator"

#: On every child: how the operator finds it. The value is FIELD_MANAGER.
MANAGED_BY = "app.kubernetes.io/managed-by"

POOL = f"{GROUP}/pool"
EXPERT = f"{GROUP}/expert"
REVISION = f"{GROUP}/revision"
#: What a child is for: snapshot, train, evaluate, grade, distill, server, gateway, store.
ROLE = f"{GROUP}/role"
#: First 16 hexadecimal digits of a digest (inputs of a revision, of a Job's config).
INPUTS = f"{GROUP}/inputs"

#: Set on a Job: the digest of the JobConfig it was made for.
CONFIG_DIGEST = f"{GROUP}/config-digest"


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
