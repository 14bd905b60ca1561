"""The part of the Pod API that the agent acts on, parsed at the border; fields it does not know are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class KeySelector(_Part):
    """One key of a ConfigMap or Secret."""

    name: str = ""
    key: str
    optional: bool = False


class FieldSelector(_Part):
    """A field of the pod itself."""

    field_path: str


class ResourceSelector(_Part):
    """A request or limit of a container."""

    container_name: str = ""
    resource: str
    divisor: str = "1"


class EnvironmentSource(_Part):
    """Where the value of a variable comes from."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None


class Variable(_Part):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvironmentSource | None = None


class ObjectReference(_Part):
    """A ConfigMap or Secret by name."""

    name: str = ""
    optional: bool = False


class EnvironmentFrom(_Part):
    """All keys of a ConfigMap or Secret as variables."""

    prefix: str = ""
    config_map_ref: ObjectReference | None = None
    secret_ref: ObjectReference | None = None


class KeyToPath(_Part):
    """Says which key becomes which file."""

    key: str
    path: str
    mode: int | None = None


class ConfigSource(_Part):
    """Files made of a ConfigMap or Secret. `name` in a projection, `secret_name` in a Secret volume."""

    name: str = ""
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class DownwardFile(_Part):
    """A file made of a field of the pod."""

    path: str
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None
    mode: int | None = None


class DownwardSource(_Part):
    """Files made of fields of the pod."""

    items: tuple[DownwardFile, ...] = ()
    default_mode: int = 0o644


class TokenSource(_Part):
    """A file with a token of the pod's service account, which is renewed before it expires."""

    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class Projection(_Part):
    """One source of a projected volume."""

    config_map: ConfigSource | None = None
    secret: ConfigSource | None = None
    downward_api: DownwardSource | None = Field(default=None, alias="downwardAPI")
    service_account_token: TokenSource | None = None


class ProjectedSource(_Part):
    """Several sources in one folder."""

    sources: tuple[Projection, ...] = ()
    default_mode: int = 0o644


class ClaimSource(_Part):
    """A persistent volume claim."""

    claim_name: str
    read_only: bool = False


class Volume(_Part):
    """One volume of a pod. Kinds that the agent does not mount stay in `model_extra`, so that errors can name them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    name: str
    empty_dir: dict[str, Any] | None = None
    config_map: ConfigSource | None = None
    secret: ConfigSource | None = None
    projected: ProjectedSource | None = None
    downward_api: DownwardSource | None = Field(default=None, alias="downwardAPI")
    persistent_volume_claim: ClaimSource | None = None


class VolumeMount(_Part):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False


class Port(_Part):
    """A named port, which probes may refer to."""

    name: str = ""
    container_port: int


class Header(_Part):
    """A header of an HTTP probe."""

    name: str
    value: str


class HTTPGet(_Part):
    """An HTTP request; 200 to 399 is success."""

    path: str = "/"
    port: int | str
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[Header, ...] = ()


class TCPSocket(_Part):
    """A connection that must open."""

    port: int | str
    host: str = ""


class Exec(_Part):
    """A command that must exit with 0, run in the container's namespaces."""

    command: tuple[str, ...] = ()


class Sleep(_Part):
    """A pause (of a preStop hook)."""

    seconds: float


class Probe(_Part):
    """A check that is repeated while the container runs. Times are in seconds; the defaults are the API's."""

    http_get: HTTPGet | None = None
    tcp_socket: TCPSocket | None = None
    exec: Exec | None = None
    grpc: dict[str, Any] | None = None
    initial_delay_seconds: float = 0
    period_seconds: float = 10
    timeout_seconds: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: float | None = None


class Hook(_Part):
    """What runs before a container gets SIGTERM."""

    exec: Exec | None = None
    http_get: HTTPGet | None = None
    sleep: Sleep | None = None


class Lifecycle(_Part):
    """Hooks of a container."""

    post_start: Hook | None = None
    pre_stop: Hook | None = None


class Resources(_Part):
    """Quantities by resource name."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}

    def requested(self) -> dict[str, str]:
        """Return the requests; a limit without a request is also a request."""
        return {**self.limits, **self.requests}


class SecurityContext(_Part):
    """Who a container, or every container of a pod, runs as. None: not said."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None


class Container(_Part):
    """One container."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[Variable, ...] = ()
    env_from: tuple[EnvironmentFrom, ...] = ()
    ports: tuple[Port, ...] = ()
    resources: Resources = Resources()
    volume_mounts: tuple[VolumeMount, ...] = ()
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    security_context: SecurityContext = SecurityContext()
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: Literal["File", "FallbackToLogsOnError"] = "File"


class PodSpec(_Part):
    """What should run."""

    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    service_account_name: str = "default"
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: float = 30
    active_deadline_seconds: float | None = None
    security_context: SecurityContext = SecurityContext()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


class ObjectMeta(_Part):
    """Who the pod is."""

    name: str
    namespace: str = "default"
    uid: str
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: float | None = None


class Pod(_Part):
    """A pod bound to this node. `status` is what the API server holds, as it is."""

    metadata: ObjectMeta
    spec: PodSpec
    status: dict[str, Any] = {}

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def uid(self) -> str:
        """What distinguishes this pod from an older one with the same name."""
        return self.metadata.uid

    @property
    def path(self) -> str:
        """Of the object in the API."""
        return f"/api/v1/namespaces/{self.metadata.namespace}/pods/{self.metadata.name}"

    @property
    def hostname(self) -> str:
        """The pod's own host name, which is also its name under a headless Service."""
        return (self.spec.hostname or self.metadata.name)[:63].rstrip("-.")

    @property
    def ended(self) -> bool:
        """Whether the API server holds a final phase."""
        return self.status.get("phase") in ("Succeeded", "Failed")

    def all_containers(self) -> tuple[Container, ...]:
        """Return all containers, init containers first, in order."""
        return self.spec.init_containers + self.spec.containers
