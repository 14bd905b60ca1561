"""Provides persistent volume claims as folders of this machine. Sizes are not enforced.

A claim of our class gets a PersistentVolume named `pvc-<uid>` and a folder of that name; the cluster's own controller
binds them. When the claim is deleted and its class says Delete, both are removed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from moe_local.agent.api_client import JSON, APIClient, APIError, ConflictError, NotFoundError
from moe_local.agent.volumes import PROVISIONED_BY, PROVISIONER

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
VOLUMES = "/api/v1/persistentvolumes"


class Provisioner:
    """Watches claims and volumes."""

    def __init__(self, client: APIClient, folder: Path, node_name: str) -> None:
        self._client = client
        self._folder = folder
        self._node_name = node_name
        self._classes: dict[str, JSON] = {}

    async def watch_claims(self) -> None:
        """Serve claims without end."""
        async for event in self._client.watch("/api/v1/persistentvolumeclaims"):
            if event.kind != "deleted":
                for claim in event.objects:
                    await self._again_until_done(self.serve, claim)

    async def watch_volumes(self) -> None:
        """Remove released volumes without end."""
        async for event in self._client.watch(VOLUMES):
            if event.kind != "deleted":
                for volume in event.objects:
                    await self._again_until_done(self.reclaim, volume)

    async def _again_until_done(self, work: Callable[[JSON], Awaitable[None]], item: JSON) -> None:
        while True:
            try:
                await work(item)
                return
            except (APIError, OSError) as error:
                log.warning("volume for %s: %s", item["metadata"]["name"], error)
                if isinstance(error, APIError) and error.status not in (0, 429) and error.status < 500:
                    return
                await asyncio.sleep(RETRY_SECONDS)

    async def _class(self, name: str) -> JSON | None:
        """Return a storage class, or None if it is not ours."""
        if name not in self._classes:
            try:
                self._classes[name] = await self._client.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
            except NotFoundError:
                return None
        found = self._classes[name]
        return found if found["provisioner"] == PROVISIONER else None

    async def serve(self, claim: JSON) -> None:
        """Create a folder and a volume for a claim of our class that has none. Raises APIError or OSError."""
        spec, meta = claim["spec"], claim["metadata"]
        if spec.get("volumeName") or meta.get("deletionTimestamp") or not spec.get("storageClassName"):
            return
        storage_class = await self._class(spec["storageClassName"])
        if storage_class is None:
            return
        name = f"pvc-{meta['uid']}"
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._client.create(VOLUMES, self._volume(name, folder, claim, storage_class))
        except ConflictError:
            return  # created by an earlier run of the agent

    def _volume(self, name: str, folder: Path, claim: JSON, storage_class: JSON) -> JSON:
        spec, meta = claim["spec"], claim["metadata"]
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self._node_name]}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
                "storageClassName": spec["storageClassName"],
                "volumeMode": "Filesystem",
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }

    async def reclaim(self, volume: JSON) -> None:
        """Remove a volume of ours and its folder if its claim is gone and its policy says Delete."""
        meta, spec = volume["metadata"], volume["spec"]
        ours = (meta.get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER
        released = (volume.get("status") or {}).get("phase") == "Released"
        if not ours or not released or spec.get("persistentVolumeReclaimPolicy") != "Delete":
            return
        name = str(meta["name"])
        await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)
        await self._client.delete(f"{VOLUMES}/{name}", uid=meta["uid"])
