"""Sends requests to a pool's gateway from the user's machine.

On the small cluster of this machine the gateway's pod has a loopback address and is called directly. Elsewhere the
request goes through the API server's proxy, so no port has to be forwarded.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_client.cluster import Cluster
from moe_client.errors import ClientError, NotFound, Unreachable


@dataclass(frozen=True, slots=True)
class Route:
    """Where the gateway would send a prompt, and why."""

    expert: str
    confidence: float | None
    strategy: str
    probabilities: Mapping[str, float]
    why: str


def route(cluster: Cluster, pool: str, prompt: str) -> Route:
    """Ask the gateway which Expert it would send a prompt to."""
    answer = post(cluster, pool, "/v1/route", {"model": pool, "prompt": prompt})
    return Route(
        expert=answer["expert"],
        confidence=answer.get("confidence"),
        strategy=answer.get("strategy", ""),
        probabilities=answer.get("probabilities") or {},
        why=answer.get("why", ""),
    )


def complete(cluster: Cluster, pool: str, prompt: str, *, max_tokens: int = 64) -> str:
    """Return the pool's completion of a prompt."""
    body = {"model": pool, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    text: str = post(cluster, pool, "/v1/completions", body)["choices"][0]["text"]
    return text


def post(cluster: Cluster, pool: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST JSON to the pool's gateway; raises Unreachable, or ClientError with the gateway's message."""
    address = _direct_address(cluster, pool)
    if address is None:
        proxy = f"/api/v1/namespaces/{cluster.namespace}/services/{pool}-gateway:http/proxy{path}"
        return cluster.call("POST", proxy, body=body)
    request = urllib.request.Request(
        address + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise ClientError(
            f"the gateway of {pool!r} refused ({error.code}): {error.read(2000).decode()}"
        ) from None
    except OSError as error:
        raise Unreachable(f"the gateway of {pool!r} does not answer at {address}: {error}") from None


def _direct_address(cluster: Cluster, pool: str) -> str | None:
    ready = [pod for pod in cluster.gateway_pods(pool) if _is_ready(pod)]
    if not ready:
        raise NotFound(
            f"pool {pool!r} has no ready gateway in namespace {cluster.namespace!r}; see `moectl why pool/{pool}`"
        )
    ip = ready[0]["status"]["podIP"]
    port = ready[0]["spec"]["containers"][0]["ports"][0]["containerPort"]
    return f"http://{ip}:{port}" if ip.startswith("127.") else None


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
