"""Whether the node is there now, and not only when the cluster ran before; and what it does not isolate."""

from __future__ import annotations

from datetime import datetime, timedelta

from moe_local.agent.status import NOT_ISOLATED
from moe_local.api import AdminAPI
from moe_local.certificates import NODE_NAME

CLOCK_RESOLUTION = timedelta(seconds=1)
"""Process start times and the kernel's boot time are exact to about this much."""


def not_isolated(api: AdminAPI) -> tuple[str, ...]:
    """Return what the node says that it does not isolate; empty if there is no node or nothing is lacking."""
    node = api.get(f"/api/v1/nodes/{NODE_NAME}") or {}
    said: str = node.get("metadata", {}).get("annotations", {}).get(NOT_ISOLATED, "")
    return tuple(said.splitlines())


def node_ready(api: AdminAPI, *, since: datetime) -> bool:
    """Return whether the node says that it can run pods, and its agent has renewed its Lease since then."""
    node = api.get(f"/api/v1/nodes/{NODE_NAME}")
    lease = api.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE_NAME}")
    if node is None or lease is None:
        return False
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])}
    renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
    return conditions.get("Ready") == "True" and renewed > since - CLOCK_RESOLUTION
