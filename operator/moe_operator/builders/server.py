"""The servers of one revision: a Deployment, and a headless Service with the addresses of its pods."""

import json
from collections.abc import Mapping
from typing import Any

from moe_formats.resources.expert import Expert
from moe_formats.resources.labels import EXPERT, GROUP, REVISION, ROLE
from moe_formats.serve_config import ServeConfig
from moe_operator.builders.metadata import child_labels, child_metadata
from moe_operator.builders.pod import (
    METRICS_PORT,
    METRICS_PORT_NAME,
    REQUESTS_PORT_NAME,
    SERVER_PORT,
    Workload,
    config_text,
    pod_spec,
)
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Manifest, Role

#: Annotation of the Deployment: the pod template with which it was created, since the template of a served revision is
#: frozen. So an upgrade of the operator restarts no server, and an edit by hand is changed back to this template.
TEMPLATE = f"{GROUP}/template"

#: Annotation of the Deployment: the hardware profile of the template. If the spec names another, the template is renewed.
PROFILE = f"{GROUP}/profile"

#: Annotation of the Deployment: the temperature of the template, if spec.serving sets one. If it changes, the template is
#: renewed.
TEMPERATURE = f"{GROUP}/temperature"

#: Annotation of the Deployment: the digest of the served artefact.
ARTEFACT = f"{GROUP}/artefact"

#: Seconds that a server has to finish requests after SIGTERM. ServeConfig's drain is shorter.
GRACE_SECONDS = 40


def server_url(*, revision: str, namespace: str) -> str:
    """Return the address of a revision's servers inside the cluster. Its name resolves to one address per server."""
    return f"http://{revision}.{namespace}.svc:{SERVER_PORT}"


def server_selector(*, expert: str, revision: str) -> dict[str, str]:
    """Return the labels that select the pods of one revision's servers."""
    return {EXPERT: expert, REVISION: revision, ROLE: Role.SERVER.value}


def build_server(
    *,
    expert: Expert,
    serve: ServeConfig,
    claim: str,
    profile: Profile,
    config: OperatorConfig,
) -> dict[str, Any]:
    """Return the Deployment, without replicas. Its pods are ready once they have loaded the artefact of that digest."""
    name, revision = expert.metadata.name, serve.revision
    labels = child_labels(pool=expert.spec.pool, role=Role.SERVER, expert=name, revision=revision)
    template = {"metadata": {"labels": labels}, "spec": pod_spec(_workload(serve, claim, profile, config))}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(
            name=revision,
            owner=expert,
            labels=labels,
            annotations={
                ARTEFACT: serve.artefact.digest,
                PROFILE: expert.spec.serving.profile,
                TEMPLATE: json.dumps(template, sort_keys=True, separators=(",", ":")),
                **({TEMPERATURE: str(serve.temperature)} if serve.temperature is not None else {}),
            },
        ),
        "spec": {
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": server_selector(expert=name, revision=revision)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def frozen(desired: Manifest, live: Manifest | None) -> Manifest:
    """Return ``desired`` with the pod template that ``live`` was created with.

    The template of a served revision does not change with the operator: a newer version may write another template, and
    servers must not restart for that. An edit by hand differs from the recorded template and is changed back. Only
    another hardware profile or temperature in the spec gives the template of ``desired``; so does a recorded template
    that somebody edited until it cannot be used.
    """
    annotations = ((live or {}).get("metadata") or {}).get("annotations") or {}
    recorded, metadata = annotations.get(TEMPLATE), desired["metadata"]
    asked = metadata["annotations"]
    if recorded is None or any(annotations.get(name) != asked.get(name) for name in (PROFILE, TEMPERATURE)):
        return desired
    template = _recorded_template(recorded, desired["spec"]["selector"]["matchLabels"])
    if template is None:
        return desired
    metadata = {**metadata, "annotations": {**metadata["annotations"], TEMPLATE: recorded}}
    return {**desired, "metadata": metadata, "spec": {**desired["spec"], "template": template}}


def _recorded_template(text: str, selector: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the pod template in an annotation; None if it is not one of a Deployment with that selector."""
    try:
        template: Mapping[str, Any] = json.loads(text)
        selected = selector.items() <= template["metadata"]["labels"].items()
        named = all(isinstance(item["name"], str) for item in template["spec"]["containers"])
        return template if selected and named and template["spec"]["containers"] else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def build_server_service(*, expert: Expert, revision: str) -> dict[str, Any]:
    """Return the Service. It is headless, since the gateway balances over the servers' addresses itself."""
    name = expert.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(
            name=revision,
            owner=expert,
            labels=child_labels(pool=expert.spec.pool, role=Role.SERVER, expert=name, revision=revision),
        ),
        "spec": {
            "clusterIP": "None",
            "selector": server_selector(expert=name, revision=revision),
            "ports": [{"name": "http", "port": SERVER_PORT, "targetPort": SERVER_PORT, "protocol": "TCP"}],
        },
    }


def _workload(serve: ServeConfig, claim: str, profile: Profile, config: OperatorConfig) -> Workload:
    ready = {"httpGet": {"path": f"/ready?digest={serve.artefact.digest}", "port": SERVER_PORT}}
    alive = {"httpGet": {"path": "/health", "port": SERVER_PORT}}
    return Workload(
        name="server",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "serve"),
        env={
            "MOE_SERVE_CONFIG": config_text(serve),
            "PORT": str(SERVER_PORT),
            "METRICS_PORT": str(METRICS_PORT),
        },
        profile=profile,
        images=config.images,
        claim=claim,
        store_read_only=True,
        ports={REQUESTS_PORT_NAME: SERVER_PORT, METRICS_PORT_NAME: METRICS_PORT},
        restart_policy="Always",
        grace_seconds=GRACE_SECONDS,
        container={
            # Loading weights may take minutes: until the server has answered once, the kubelet does not restart it.
            "startupProbe": {**alive, "periodSeconds": 1, "failureThreshold": 1800, "timeoutSeconds": 2},
            "readinessProbe": {**ready, "periodSeconds": 1, "failureThreshold": 3, "timeoutSeconds": 2},
            "livenessProbe": {**alive, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        },
    )
