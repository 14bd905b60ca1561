"""Names that objects carry: the API group, labels, annotations, the field manager."""

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
