"""Reads the custom resources of one namespace as models, and changes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from moe_client.errors import NotFound
from moe_formats.resources.base import CustomResource
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.kinds import KINDS
from moe_formats.resources.labels import GROUP, POOL, ROLE, VERSION

M = TypeVar("M", bound=CustomResource)

_KINDS = {kind.model: kind for kind in KINDS}


class Cluster:
    """One namespace of one cluster.

    ``kubeconfig`` defaults to $KUBECONFIG; without it, to the pod's own account inside a cluster and to
    ~/.kube/config elsewhere. ``namespace`` defaults to that of the current context.
    """

    def __init__(self, *, kubeconfig: Path | None = None, namespace: str | None = None) -> None:
        # Imported here: importing Kubernetes' client takes a second, and not every command needs it.
        from moe_client.connection import Connection

        self._connection = Connection(kubeconfig)
        self.namespace = namespace or self._connection.namespace

    def get(self, kind: type[M], name: str) -> M:
        """Return one object; raises NotFound with the names that exist."""
        try:
            return kind.model_validate(self.call("GET", f"{self._path(kind)}/{name}"))
        except NotFound:
            names = ", ".join(sorted(item.metadata.name for item in self.all(kind))) or "none"
            raise NotFound(
                f"{_KINDS[kind].singular} {name!r} is not in namespace {self.namespace!r}; there are: {names}"
            ) from None

    def all(self, kind: type[M]) -> list[M]:
        """Return all objects of a kind, sorted by name."""
        items = self.call("GET", self._path(kind)).get("items", [])
        return sorted((kind.model_validate(item) for item in items), key=lambda item: item.metadata.name)

    def patch(self, found: M, change: Mapping[str, Any]) -> M:
        """Merge a change into an object that was read, and return the result; raises Conflict if it is not as it was read."""
        kind, metadata = type(found), found.metadata
        held = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
        return kind.model_validate(
            self.call(
                "PATCH",
                f"{self._path(kind)}/{metadata.name}",
                body={**change, "metadata": held},
                headers={"Content-Type": "application/merge-patch+json"},
            )
        )

    def proposals(self, *, expert: str | None = None, pool: str | None = None) -> list[ExpertProposal]:
        """Return the proposals about an Expert, or those of a pool, or all, oldest first."""
        wanted = (
            item
            for item in self.all(ExpertProposal)
            if expert in (None, item.spec.expert) and pool in (None, item.spec.pool)
        )
        return sorted(
            wanted, key=lambda item: (str(item.metadata.creation_timestamp or ""), item.metadata.name)
        )

    def revisions(self, expert: str) -> list[ExpertRevision]:
        """Return the revisions of an Expert, oldest first."""
        found = [item for item in self.all(ExpertRevision) if item.spec.expert == expert]
        return sorted(found, key=lambda item: item.spec.number)

    def pods(self, **labels: str) -> list[Mapping[str, Any]]:
        """Return the pods with these labels, as JSON from the API server."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = self.call(
            "GET", f"/api/v1/namespaces/{self.namespace}/pods", query={"labelSelector": selector}
        )
        items: list[Mapping[str, Any]] = answer["items"]
        return items

    def gateway_pods(self, pool: str) -> list[Mapping[str, Any]]:
        """Return the pods of a pool's gateway."""
        return self.pods(**{POOL: pool, ROLE: "gateway"})

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Return the newest events about an object of this namespace, oldest first."""
        answer = self.call(
            "GET",
            f"/api/v1/namespaces/{self.namespace}/events",
            query={"fieldSelector": f"involvedObject.name={name}"},
        )
        items: list[Mapping[str, Any]] = answer["items"]
        return sorted(items, key=lambda item: str(item.get("lastTimestamp") or item.get("eventTime") or ""))

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request to the API server; raises NotFound, Forbidden, Conflict, NoCluster or ClientError."""
        return self._connection.call(method, path, body=body, query=query, headers=headers)

    def _path(self, kind: type[CustomResource]) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{_KINDS[kind].plural}"
