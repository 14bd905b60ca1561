"""The connection to an API server; the only module that uses Kubernetes' own client."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from moe_client.errors import ClientError, Conflict, Forbidden, NoCluster, NotFound

#: Seconds to wait for an answer.
TIMEOUT = 30


class Connection:
    """One API server, with the user's credentials; ``namespace`` is that of the current context."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._api = client.ApiClient(_configuration(kubeconfig))
        self.namespace = _current_namespace(kubeconfig)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the answer; raises NotFound, Forbidden, Conflict, NoCluster or ClientError."""
        sent = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            response = self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=sent,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=TIMEOUT,
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
        answer = json.loads(error.body)
        # What a gateway behind the API server's proxy says has OpenAI's shape.
        message = answer["error"]["message"] if "error" in answer else answer["message"]
    except (ValueError, KeyError, TypeError):
        message = str(error.reason)
    if error.status == 404:
        return NotFound(message)
    kind = {403: Forbidden, 409: Conflict}.get(error.status, ClientError)
    return kind(f"the API server refused ({error.status}): {message}")
