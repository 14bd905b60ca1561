"""Read and write the custom resources of one namespace, as models.

The only place of the client where Kubernetes' own client is used.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from moe_client.errors import ClientError, NoCluster, NotFound
from moe_operator.api.base import ApiModel
from moe_operator.api.expert import Expert
from moe_operator.api.expert_pool import ExpertPool
from moe_operator.api.expert_revision import ExpertRevision
from moe_operator.api.labels import API_VERSION, EXPERT, GROUP, POOL, VERSION

FIELD_MANAGER = "moectl"
PLURALS: dict[type[ApiModel], str] = {
    Expert: "experts",
    ExpertPool: "expertpools",
    ExpertRevision: "expertrevisions",
}
M = TypeVar("M", Expert, ExpertPool, ExpertRevision)


class Cluster:
    """One namespace of one cluster.

    ``kubeconfig`` defaults to $KUBECONFIG, then ~/.kube/config, then the pod's own account; ``namespace``
    to that of the current context.
    """

    def __init__(self, *, kubeconfig: Path | None = None, namespace: str | None = None) -> None:
        self.namespace = namespace or _current_namespace(kubeconfig)
        self._api = client.ApiClient(_configuration(kubeconfig))

    def get(self, kind: type[M], name: str) -> M:
        """Return one object; raises NotFound with the names there are."""
        try:
            return kind.model_validate(self.call("GET", f"{self._path(kind)}/{name}"))
        except NotFound:
            names = ", ".join(sorted(item.metadata.name for item in self.all(kind))) or "none"
            raise NotFound(
                f"{PLURALS[kind][:-1]} {name!r} is not in namespace {self.namespace!r}; there are: {names}"
            ) from None

    def all(self, kind: type[M]) -> list[M]:
        """Return all objects of a kind, by name."""
        items = self.call("GET", self._path(kind)).get("items", [])
        return sorted((kind.model_validate(item) for item in items), key=lambda item: item.metadata.name)

    def revisions(self, expert: str) -> list[ExpertRevision]:
        """Return the revisions of an Expert, oldest first."""
        found = [item for item in self.all(ExpertRevision) if item.spec.expert == expert]
        return sorted(found, key=lambda item: item.spec.number)

    def pods(self, **labels: str) -> list[Mapping[str, Any]]:
        """Return the pods with these labels, as the API server speaks."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = self.call(
            "GET", f"/api/v1/namespaces/{self.namespace}/pods", query={"labelSelector": selector}
        )
        items: list[Mapping[str, Any]] = answer["items"]
        return items

    def gateway_pods(self, pool: str) -> list[Mapping[str, Any]]:
        """Return the pods of a pool's gateway."""
        return self.pods(**{POOL: pool, f"{GROUP}/role": "gateway"})

    def server_pods(self, expert: str) -> list[Mapping[str, Any]]:
        """Return the server pods of an Expert."""
        return self.pods(**{EXPERT: expert, f"{GROUP}/role": "server"})

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Return the newest events about an object of this namespace, oldest first."""
        answer = self.call(
            "GET",
            f"/api/v1/namespaces/{self.namespace}/events",
            query={"fieldSelector": f"involvedObject.name={name}"},
        )
        items: list[Mapping[str, Any]] = answer["items"]
        return sorted(items, key=lambda item: str(item.get("lastTimestamp") or item.get("eventTime") or ""))

    def apply(self, documents: Iterable[Mapping[str, Any]]) -> list[str]:
        """Apply custom resources by server-side apply; return `kind/name` of each."""
        applied = []
        plurals = {kind.__name__: plural for kind, plural in PLURALS.items()}
        for document in documents:
            kind, name = document["kind"], document["metadata"]["name"]
            path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/{plurals[kind]}/{name}"
            self.call("PATCH", path, body=document, query={"fieldManager": FIELD_MANAGER, "force": "true"})
            applied.append(f"{kind.lower()}/{name}")
        return applied

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request to the API server; raises NotFound, NoCluster or ClientError."""
        headers = {"Accept": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/apply-patch+yaml"
        elif body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=30,
            )
            answer: dict[str, Any] = json.loads(response.data)
            return answer
        except ApiException as error:
            raise _client_error(error) from None
        except HTTPError as error:
            raise NoCluster(
                f"no API server answers at {self._api.configuration.host}: {type(error).__name__}. "
                'Is KUBECONFIG right? On a laptop: `moectl local up`, then `eval "$(moectl local env)"`'
            ) from None

    def _path(self, kind: type[ApiModel]) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURALS[kind]}"


def read_manifests(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file, or of all `*.yaml` files of a folder in their order."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def _configuration(kubeconfig: Path | None) -> client.Configuration:
    settings = client.Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(str(kubeconfig) if kubeconfig else None, client_configuration=settings)
    except (ConfigException, OSError) as error:
        raise NoCluster(
            f'no cluster is configured: {error}. Set KUBECONFIG; on a laptop: `eval "$(moectl local env)"`'
        ) from None
    settings.retries = False
    return settings


def _current_namespace(kubeconfig: Path | None) -> str:
    try:
        _, context = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)
    except (ConfigException, OSError):
        return "default"
    namespace: str = (context or {}).get("context", {}).get("namespace", "default")
    return namespace


def _client_error(error: ApiException) -> ClientError:
    try:
        message = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        message = str(error.reason)
    return (
        NotFound(message)
        if error.status == 404
        else ClientError(f"the API server refused ({error.status}): {message}")
    )
