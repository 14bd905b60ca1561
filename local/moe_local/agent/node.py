"""The Node object: what this machine offers, its conditions, and the Lease that shows that the agent is alive."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import time
from pathlib import Path

from moe_local.agent.api_client import JSON, APIClient, APIError, ConflictError, NotFoundError
from moe_local.agent.config import AgentConfig
from moe_local.agent.machine import Isolation
from moe_local.agent.status import ISOLATION, NODE_ADDRESS, NOT_ISOLATED, timestamp

log = logging.getLogger(__name__)

LEASE_SECONDS = 40
STATUS_EVERY = 30
"""Heartbeats between two reports of the whole status; every heartbeat renews the Lease."""
KUBELET_VERSION = "v1.36.3"
MOST_PODS = "110"


def measured_capacity(state_dir: Path) -> dict[str, str]:
    """Return what this machine has."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages // 1024}Ki",
        "pods": MOST_PODS,
        "ephemeral-storage": f"{shutil.disk_usage(state_dir).total // 1024}Ki",
    }


def _machine() -> JSON:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "machineID": "",
        "systemUUID": "",
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": platform.platform(terse=True),
        "containerRuntimeVersion": "moe-local://1",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


class Node:
    """Registers this node and keeps it ready in the cluster."""

    def __init__(
        self, config: AgentConfig, client: APIClient, *, capacity: dict[str, str], isolation: Isolation
    ) -> None:
        self._config = config
        self._client = client
        self._capacity = capacity
        self._isolation = isolation
        self._path = f"/api/v1/nodes/{config.node_name}"
        self._uid = ""

    def manifest(self, now: float) -> JSON:
        """Return the Node as it is created."""
        machine = _machine()
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._config.node_name,
                "labels": {
                    **self._config.node_labels,
                    "moe-operator.dev/local": "true",
                    "kubernetes.io/hostname": self._config.node_name,
                    "kubernetes.io/os": machine["operatingSystem"],
                    "kubernetes.io/arch": machine["architecture"],
                },
                "annotations": {
                    ISOLATION: "mount-namespace" if self._isolation.kind else "none",
                    NOT_ISOLATED: "\n".join(self._isolation.lacks),
                },
            },
            "status": self.status(now, before={}),
        }

    def status(self, now: float, before: JSON) -> JSON:
        """Return capacity, address and conditions; a condition that has not changed keeps its lastTransitionTime."""
        isolated = bool(self._isolation.kind)
        isolation_message = "; ".join(
            [
                "isolation: mount-namespace"
                if isolated
                else f"isolation: none, paths are rewritten instead: {self._isolation.why}",
                *self._isolation.lacks,
            ]
        )
        conditions = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "the agent does not watch memory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "the agent does not watch disks"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "the agent does not watch process ids"),
            ("MountNamespaces", "True" if isolated else "False", "Tried", isolation_message),
            ("Ready", "True", "KubeletReady", "the node agent runs pods as processes"),
        ]
        old = {c["type"]: c for c in before.get("conditions") or []}
        return {
            "capacity": self._capacity,
            "allocatable": self._capacity,
            "addresses": [
                {"type": "InternalIP", "address": NODE_ADDRESS},
                {"type": "Hostname", "address": self._config.node_name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._config.listen_port}},
            "nodeInfo": _machine(),
            "conditions": [
                {
                    "type": kind,
                    "status": value,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": timestamp(now),
                    "lastTransitionTime": old[kind]["lastTransitionTime"]
                    if old.get(kind, {}).get("status") == value
                    else timestamp(now),
                }
                for kind, value, reason, message in conditions
            ],
        }

    async def register(self) -> None:
        """Create the Node, or update the one of an earlier run. Raises APIError."""
        manifest = self.manifest(time.time())
        try:
            node = await self._client.create("/api/v1/nodes", manifest)
        except ConflictError:
            await self._client.patch(self._path, {"metadata": manifest["metadata"]})
            node = await self._report()
        self._uid = node["metadata"]["uid"]

    async def _report(self) -> JSON:
        before = (await self._client.get(self._path)).get("status") or {}
        return await self._client.patch(f"{self._path}/status", {"status": self.status(time.time(), before)})

    async def _renew(self) -> None:
        """Renew the node's Lease."""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        moment = time.time()
        spec = {
            "holderIdentity": self._config.node_name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": f"{timestamp(moment)[:-1]}.{int(moment % 1 * 1e6):06d}Z",
        }
        try:
            await self._client.patch(f"{leases}/{self._config.node_name}", {"spec": spec})
        except NotFoundError:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._config.node_name, "uid": self._uid}
            body = {
                "metadata": {"name": self._config.node_name, "ownerReferences": [owner]},
                "spec": spec,
            }
            await self._client.create(leases, body)

    async def heartbeat(self) -> None:
        """Report without end; a Node that somebody has deleted is created again. Never raises APIError."""
        beats = 0
        while True:
            try:
                await self._renew()
                node = await self._client.get(self._path) if beats % STATUS_EVERY else await self._report()
                ready = next((c for c in node["status"]["conditions"] if c["type"] == "Ready"), None)
                if not ready or ready["status"] != "True":
                    await self._report()
                beats += 1
            except NotFoundError:
                beats = 0
                await self._try_register()
            except APIError as error:
                beats = 0
                log.warning("heartbeat: %s", error)
            await asyncio.sleep(self._config.heartbeat_seconds)

    async def _try_register(self) -> None:
        try:
            await self.register()
        except APIError as error:
            log.warning("cannot register the node: %s", error)
