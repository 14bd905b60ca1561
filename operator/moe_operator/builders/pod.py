"""What all pods have in common: a restricted security context, the volumes and the environment.

A container gets every path, port and address in environment variables, and learns them in no other way:

    MOE_STORE            folder of the pool's store
    MOE_SOURCES          folder of the data to read, with one folder per source
    MOE_OBJECT_STORES    locations of buckets (JSON)
    MOE_CREDENTIALS      folder of the keys of buckets, with one folder per data store
    MOE_SCRATCH          folder for temporary files, which is deleted with the pod
    MOE_JOB_CONFIG       what a Job should do (JSON)
    MOE_SERVE_CONFIG     what a server serves (JSON)
    MOE_ROUTING_POLICY   file with the gateway's routing policy
    MOE_API_KEYS_FILE    file with the API keys of a gateway's clients, one per line
    MOE_GRADINGS         folder that passes answers to graders and verdicts back, with one folder per grader
    MOE_TERMINATION_LOG  file to which the headline is written
    MOE_PROGRESS_PORT    port on which training reports its progress
    POD_IP, PORT         address and port to listen on
    METRICS_PORT         port for Prometheus and for the operator, of gateways and servers
    OMP_NUM_THREADS      number of threads per process
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_formats.format import Format
from moe_operator.config import Images, Profile

STORE_PATH = "/moe/store"
SOURCES_PATH = "/moe/sources"
SCRATCH_PATH = "/moe/scratch"
TERMINATION_LOG = "/dev/termination-log"

SERVER_PORT = 8000
GATEWAY_PORT = 8080
PROGRESS_PORT = 8090
#: Port of gateways and servers that clients must not reach: /metrics, and for the operator a gateway's /policy.
METRICS_PORT = 9090
#: Names of container ports, by which NetworkPolicies and PodMonitors of the chart refer to them.
REQUESTS_PORT_NAME = "http"
METRICS_PORT_NAME = "metrics"
#: Name of the container port on which rank 0 of a training Job reports its progress.
PROGRESS_PORT_NAME = "progress"

#: User and group that everything runs as. Claims are made writable for this group.
USER = 65532

#: The resource that is a pod's disk space outside its claims: temporary files and logs.
EPHEMERAL_STORAGE = "ephemeral-storage"
#: Its limit, unless the hardware profile has another. A pod that takes more is evicted. A snapshot keeps all documents
#: that it reads in temporary files, so the limit is generous.
DEFAULT_EPHEMERAL_STORAGE = "50Gi"
#: Its request, unless the hardware profile has another. Kubernetes would reserve the whole limit if there were none.
NOTHING_RESERVED = "0"
#: Limit of shared memory for a hardware profile without a limit of memory, of which shared memory is a part.
DEFAULT_SHARED_MEMORY = "16Gi"

#: Seconds from SIGTERM to SIGKILL for the pods of Jobs, in which a checkpoint can be written.
JOB_GRACE_SECONDS = 30


@dataclass(frozen=True)
class SourceMount:
    """A claim that data is read from. It is mounted read-only at the folder ``root`` inside MOE_SOURCES."""

    root: str
    claim: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What differs between pods: the container and what it runs on. ``pod_spec`` adds the rest."""

    name: str
    image: str
    command: Sequence[str]
    env: Mapping[str, str]
    profile: Profile
    images: Images
    claim: str
    store_read_only: bool = False
    sources: tuple[SourceMount, ...] = ()
    #: Number of devices of the profile's kind that the pod asks for. Ignored if the profile has no device.
    devices: int = 1
    ports: Mapping[str, int] = field(default_factory=dict)
    restart_policy: str = "Never"
    grace_seconds: int = JOB_GRACE_SECONDS
    #: Name of the headless Service under which the pod has a DNS name of its own.
    subdomain: str | None = None
    #: Further fields of the container, such as probes.
    container: Mapping[str, Any] = field(default_factory=dict)
    #: Further volumes by name, each with its mount path. They are mounted read-only.
    volumes: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    #: Whether the pod needs more shared memory than a container runtime gives by default. Several processes with devices
    #: of their own exchange data through it.
    shared_memory: bool = False


def config_text(config: Format) -> str:
    """Return a config as JSON for an environment variable.

    ``$`` is escaped: TorchX and Kubernetes would otherwise replace what follows it as a variable.
    """
    return config.to_json().replace("$", "\\u0024")


def pod_spec(work: Workload) -> dict[str, Any]:
    """Return the spec of a pod with one container, which the Pod Security Standard `restricted` allows."""
    volumes, mounts = _volumes(work)
    spec: dict[str, Any] = {
        "restartPolicy": work.restart_policy,
        "terminationGracePeriodSeconds": work.grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(work, mounts)],
        "volumes": volumes,
    }
    if work.subdomain is not None:
        spec["subdomain"] = work.subdomain
    if work.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in work.images.pull_secrets]
    if work.profile.node_selector:
        spec["nodeSelector"] = dict(work.profile.node_selector)
    if work.profile.tolerations:
        spec["tolerations"] = [dict(item) for item in work.profile.tolerations]
    return spec


def container_security() -> dict[str, Any]:
    """Return the security context that every container needs under the Pod Security Standard `restricted`."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _container(work: Workload, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": work.name,
        "image": work.image,
        "imagePullPolicy": work.images.pull_policy,
        "command": list(work.command),
        "env": _environment(work),
        "resources": _resources(work.profile, work.devices),
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    if work.ports:
        container["ports"] = [
            {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in work.ports.items()
        ]
    container.update(work.container)
    return container


def _environment(work: Workload) -> list[dict[str, Any]]:
    values = {
        "MOE_STORE": STORE_PATH,
        "MOE_SCRATCH": SCRATCH_PATH,
        "MOE_TERMINATION_LOG": TERMINATION_LOG,
        # The root file system is read-only, so caches and temporary files go to the scratch folder.
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
        "OMP_NUM_THREADS": str(work.profile.threads),
    }
    if work.sources:
        values["MOE_SOURCES"] = SOURCES_PATH
    values.update(work.env)
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}
    return [address, *({"name": name, "value": value} for name, value in values.items())]


def _resources(profile: Profile, devices: int) -> dict[str, Any]:
    requests = {EPHEMERAL_STORAGE: NOTHING_RESERVED, **profile.requests}
    limits = {EPHEMERAL_STORAGE: _ephemeral_storage(profile), **profile.limits}
    if profile.device:
        hosts = -(-devices // profile.host_devices)
        # An extended resource cannot be overcommitted, so its request equals its limit.
        requests[profile.device] = limits[profile.device] = str(hosts * profile.host_devices)
    return {"requests": requests, "limits": limits}


def _ephemeral_storage(profile: Profile) -> str:
    return profile.limits.get(EPHEMERAL_STORAGE, DEFAULT_EPHEMERAL_STORAGE)


def _volumes(work: Workload) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    store: dict[str, Any] = {"name": "store", "mountPath": STORE_PATH}
    if work.store_read_only:
        store["readOnly"] = True
    volumes: list[dict[str, Any]] = [
        {"name": "store", "persistentVolumeClaim": {"claimName": work.claim}},
        {"name": "scratch", "emptyDir": {"sizeLimit": _ephemeral_storage(work.profile)}},
    ]
    mounts = [store, {"name": "scratch", "mountPath": SCRATCH_PATH}]
    for number, source in enumerate(work.sources):
        name = f"source-{number}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": source.claim, "readOnly": True}})
        mounts.append({"name": name, "mountPath": f"{SOURCES_PATH}/{source.root}", "readOnly": True})
    if work.shared_memory:
        size = work.profile.limits.get("memory", DEFAULT_SHARED_MEMORY)
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    for name, (path, volume) in work.volumes.items():
        volumes.append({"name": name, **volume})
        mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return volumes, mounts
