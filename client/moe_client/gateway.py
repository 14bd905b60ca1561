"""Sends requests to a pool's gateway from the user's machine.

On the small cluster of this machine the gateway's pod has a loopback address and is called directly. Elsewhere the
request goes through the API server's proxy, so no port has to be forwarded. An API server keeps the header Authorization
for itself, so the key for the gateway is in `x-api-key`.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from moe_client.api_key import VARIABLE
from moe_client.cluster import Cluster
from moe_client.errors import ClientError, NotFound, Unreachable

_HOW_TO_GIVE_A_KEY = f". Set {VARIABLE}, or give --api-key-file"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the gateway would send a prompt, and why."""

    expert: str
    confidence: float | None
    strategy: str
    probabilities: Mapping[str, float]
    why: str


def route(cluster: Cluster, pool: str, prompt: str, *, key: str | None = None) -> Route:
    """Ask the gateway which Expert it would send a prompt to; `key` is for a gateway that asks for one."""
    answer = post(cluster, pool, "/v1/route", {"model": pool, "prompt": prompt}, key=key)
    return Route(
        expert=answer["expert"],
        confidence=answer.get("confidence"),
        strategy=answer.get("strategy", ""),
        probabilities=answer.get("probabilities") or {},
        why=answer.get("why", ""),
    )


def complete(
    cluster: Cluster, pool: str, prompt: str, *, max_tokens: int = 64, key: str | None = None
) -> str:
    """Return the pool's completion of a prompt."""
    body = {"model": pool, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    text: str = post(cluster, pool, "/v1/completions", body, key=key)["choices"][0]["text"]
    return text


def post(
    cluster: Cluster, pool: str, path: str, body: Mapping[str, Any], *, key: str | None = None
) -> dict[str, Any]:
    """POST JSON to the pool's gateway; raises Unreachable, or ClientError with the gateway's message."""
    address = _direct_address(cluster, pool)
    headers = {"x-api-key": key} if key is not None else {}
    if address is None:
        proxy = f"/api/v1/namespaces/{cluster.namespace}/services/{pool}-gateway:http/proxy{path}"
        try:
            return cluster.call("POST", proxy, body=body, headers=headers)
        except ClientError as error:
            raise ClientError(f"{error}{_HOW_TO_GIVE_A_KEY}") if "API key" in str(error) else error from None
    headers |= {"Content-Type": "application/json"}
    request = urllib.request.Request(address + path, data=json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        how = _HOW_TO_GIVE_A_KEY if error.code == HTTPStatus.UNAUTHORIZED else ""
        raise ClientError(
            f"the gateway of {pool!r} refused ({error.code}): {error.read(2000).decode()}{how}"
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
