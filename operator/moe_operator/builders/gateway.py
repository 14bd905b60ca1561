"""The pool's gateway: a Deployment, a Service, and the ConfigMap with its routing policy."""

from typing import Any

from moe_formats.resources.expert_pool import ExpertPool, KeysFrom
from moe_formats.resources.labels import POOL, ROLE
from moe_formats.routing_policy import RoutingPolicy
from moe_operator.builders.metadata import child_labels, child_metadata
from moe_operator.builders.pod import (
    EPHEMERAL_STORAGE,
    GATEWAY_PORT,
    METRICS_PORT,
    METRICS_PORT_NAME,
    REQUESTS_PORT_NAME,
    Workload,
    pod_spec,
)
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role

#: Key of the ConfigMap under which the routing policy is.
POLICY_KEY = "policy.json"
_POLICY_FOLDER = "/moe/policy"
_KEYS_FOLDER, _KEYS_FILE = "/moe/keys", "keys"

#: Gateways run no model, so what they may use is fixed here and is not a hardware profile that users choose.
_PROFILE = Profile(
    description="the gateway",
    requests={"cpu": "50m", "memory": "96Mi"},
    limits={"memory": "512Mi", EPHEMERAL_STORAGE: "1Gi"},
)

#: Seconds a gateway has to finish requests after SIGTERM.
GRACE_SECONDS = 60


def gateway_url(*, name: str, namespace: str) -> str:
    """Return the address of the gateway inside the cluster."""
    return f"http://{name}.{namespace}.svc:{GATEWAY_PORT}"


def gateway_selector(*, pool: str) -> dict[str, str]:
    """Return the labels that select the gateway's pods."""
    return {POOL: pool, ROLE: Role.GATEWAY.value}


def build_policy(*, name: str, pool: ExpertPool, policy: RoutingPolicy) -> dict[str, Any]:
    """Return the ConfigMap that gateways mount, and that they read again whenever it changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(
            name=name, owner=pool, labels=child_labels(pool=pool.metadata.name, role=Role.GATEWAY)
        ),
        "data": {POLICY_KEY: policy.to_json()},
    }


def build_gateway(*, name: str, pool: ExpertPool, policy_name: str, config: OperatorConfig) -> dict[str, Any]:
    """Return the Deployment, without replicas. A rollout ends no gateway before its replacement is ready."""
    labels = child_labels(pool=pool.metadata.name, role=Role.GATEWAY)
    keys = config.gateways.keys_of(pool)
    work = Workload(
        name="gateway",
        image=config.images.gateway,
        command=("moe-gateway",),
        env={
            "MOE_ROUTING_POLICY": f"{_POLICY_FOLDER}/{POLICY_KEY}",
            "PORT": str(GATEWAY_PORT),
            "METRICS_PORT": str(METRICS_PORT),
            **({"MOE_API_KEYS_FILE": f"{_KEYS_FOLDER}/{_KEYS_FILE}"} if keys is not None else {}),
        },
        profile=_PROFILE,
        images=config.images,
        claim=pool.claim,
        store_read_only=True,
        ports={REQUESTS_PORT_NAME: GATEWAY_PORT, METRICS_PORT_NAME: METRICS_PORT},
        restart_policy="Always",
        grace_seconds=GRACE_SECONDS,
        container={
            "readinessProbe": _probe("/readyz", period=1, failures=3),
            "livenessProbe": _probe("/healthz", period=10, failures=6),
        },
        volumes={
            "policy": (_POLICY_FOLDER, {"configMap": {"name": policy_name}}),
            **({"keys": (_KEYS_FOLDER, _secret(keys))} if keys is not None else {}),
        },
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(name=name, owner=pool, labels=labels),
        "spec": {
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": gateway_selector(pool=pool.metadata.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(work)},
        },
    }


def _secret(keys: KeysFrom) -> dict[str, Any]:
    """Return the volume with the API keys. It is not optional: no gateway starts to refuse everybody for want of it."""
    items = [{"key": keys.key, "path": _KEYS_FILE}]
    return {"secret": {"secretName": keys.secret, "items": items, "defaultMode": 0o440}}


def build_gateway_service(*, name: str, pool: ExpertPool) -> dict[str, Any]:
    """Return the Service under whose name clients reach the gateway.

    It has a cluster address, as an Ingress or a mesh expects. The kind of a Service cannot be changed, so one that was made
    headless by an earlier operator stays headless until somebody deletes it.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(
            name=name, owner=pool, labels=child_labels(pool=pool.metadata.name, role=Role.GATEWAY)
        ),
        "spec": {
            "selector": gateway_selector(pool=pool.metadata.name),
            "ports": [{"name": "http", "port": GATEWAY_PORT, "targetPort": GATEWAY_PORT, "protocol": "TCP"}],
        },
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": GATEWAY_PORT},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }
