"""Posts the events that `kubectl describe pod` shows. Each is sent once and never blocks anything."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal

from moe_local.agent.api_client import APIClient, APIError
from moe_local.agent.pod import Pod

MOST_MESSAGE = 1024
REPEAT_SECONDS = 60.0


class Events:
    """Posts events about pods; the same event about the same pod at most once a minute."""

    def __init__(self, client: APIClient, node: str) -> None:
        self._client = client
        self._node = node
        self._told: dict[tuple[str, str, str], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, pod: Pod, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Post an event in the background."""
        now = time.monotonic()
        self._told = {what: when for what, when in self._told.items() if now - when < REPEAT_SECONDS}
        if (pod.uid, reason, message) in self._told:
            return
        self._told[(pod.uid, reason, message)] = now
        task = asyncio.create_task(self._post(pod, kind, reason, message[:MOST_MESSAGE]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace, name = pod.key
        body = {
            "metadata": {"generateName": f"{name[:200]}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": namespace,
                "name": name,
                "uid": pod.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._client.create(f"/api/v1/namespaces/{namespace}/events", body)
        except APIError:
            return  # a lost event changes nothing
