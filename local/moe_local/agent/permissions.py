"""What the agent may do in the API, beyond what the Node authorizer and `system:node` allow a kubelet."""

from __future__ import annotations

from typing import Any

NAME = "moe-local-agent"


def role_and_binding(user: str) -> list[dict[str, Any]]:
    """The ClusterRole of the agent and its binding to a user, as manifests. Applied by `moectl local up`."""
    rules = [
        # Mounted ConfigMaps and Secrets follow their objects; a kubelet would open one watch for each.
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "watch"]},
        # Names of Services are resolved to pods by the agent.
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list", "watch"]},
        # Claims are provisioned as folders.
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["persistentvolumes"],
            "verbs": ["get", "list", "watch", "create", "delete"],
        },
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "create"]},
    ]
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
        },
    ]
