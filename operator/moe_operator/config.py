"""The operator's configuration, which the platform's owner decides: images, hardware profiles, data stores and graders.

It is read from a mounted YAML file, which the chart writes from its values (ConfigMap ``moe-operator``, key
``config.yaml``). Users of the API can only refer to the names that are defined here.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from moe_formats.resources.expert_pool import SECRET_OF_KEYS, ExpertPool, GatewayLimits, KeysFrom
from moe_formats.routing_policy import KeyLimits, Limits, Origin


class ConfigModel(BaseModel):
    """Base of all models here. It refuses unknown keys: a misspelt one is an error at the start, not a silent default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """Let a key without a value have its default, as in a manifest."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}


class Images(ConfigModel):
    """Images of the pods that the operator creates, and how they are pulled."""

    trainer: str
    gateway: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


class Profile(ConfigModel):
    """A hardware profile: what a pod gets that asks for it by name."""

    description: str = ""
    #: Name of the extended resource of one device, for example ``nvidia.com/gpu``. Empty: no device.
    device: str = ""
    #: Number of devices that a host gives out only together, as hosts of TPUs do. The number of devices that a pod asks for
    #: is rounded up to a multiple of it.
    host_devices: int = Field(default=1, ge=1)
    #: Resource requests and limits of the container, as in a pod spec. A limit of ephemeral-storage that is not given is
    #: that of ``builders/pod.py``.
    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    #: Replaces the trainer's image, for example one built for another accelerator.
    image: str | None = None
    #: Number of threads of a process (OMP_NUM_THREADS).
    threads: int = 1


class S3(ConfigModel):
    """A bucket in an object store that speaks S3."""

    #: URL of the service. Empty: that of AWS in the region.
    endpoint: str = Field(default="", pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?)?$")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$")
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")
    #: Folder of the bucket that paths of sources are relative to. Empty: the whole bucket.
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._/=-]*$")
    #: Name of a Secret in each namespace that may use the store. It has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and,
    #: if needed, AWS_SESSION_TOKEN and ca.crt. Empty: the bucket is read anonymously.
    secret: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")


class Store(ConfigModel):
    """A data store that Experts read from: a claim in the user's namespace, mounted read-only, or a bucket."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["claim"]}, {"required": ["s3"]}]},
    )

    description: str = ""
    #: Name of a PersistentVolumeClaim in each namespace that may use the store.
    claim: str | None = None
    s3: S3 | None = None
    #: Namespaces that may use it. Empty: all.
    namespaces: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.claim is None) == (self.s3 is None):
            raise ValueError("a store needs exactly one of claim and s3: keep one and remove the other")
        return self


#: Name of a grader, by which pools refer to it.
GraderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class Grader(ConfigModel):
    """A program that judges, in a container of its own, which answers to an evaluator's items are right."""

    description: str = ""
    image: str = Field(min_length=1)
    #: The program and its arguments. Empty: those of the image.
    command: tuple[str, ...] = ()
    #: Resource limits of its container, which are also its requests. Default: one core and 1 GiB of memory.
    limits: dict[str, str] = Field(default_factory=dict)
    #: Seconds that it may take. The pod is stopped after the seconds of all its graders together plus ten minutes.
    timeout_seconds: int = Field(default=600, ge=1, le=86_400)
    #: Namespaces whose pools may name it. Empty: all.
    namespaces: tuple[str, ...] = ()


#: Seconds that a pod may run: what the API server accepts.
_Deadline = Annotated[int, Field(ge=1, le=2_147_483_647)]


class Deadlines(ConfigModel):
    """Seconds that the pod of a Job may run, by what the Job does. A Job that takes longer has failed for good.

    Time in which no node has room for the pod does not count. A grade Job has the time of its graders instead.
    """

    snapshot: _Deadline = 3 * 86_400
    train: _Deadline = 30 * 86_400
    evaluate: _Deadline = 3 * 86_400
    drift: _Deadline = 86_400
    matrix: _Deadline = 3 * 86_400
    distill: _Deadline = 86_400


class KeysFromDefault(KeysFrom):
    """The Secret with the API keys of clients, in the namespace of each pool that names none itself. Empty: none."""

    model_config = ConfigDict(extra="forbid")

    secret: str = Field(default="", pattern=rf"^$|{SECRET_OF_KEYS}")


class LimitDefaults(GatewayLimits):
    """What gateways accept whose pools do not say."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("per_key")
    @classmethod
    def _empty_is_none(cls, value: KeyLimits | None) -> KeyLimits | None:
        """Take limits per key that limit nothing, as values.yaml has them, for none: a policy is the same with either."""
        return value if value is not None and value.model_dump(exclude_none=True) else None


class Gateways(ConfigModel):
    """What holds for the gateway of each pool that does not say otherwise in ``spec.gateway``."""

    keys_from: KeysFromDefault = Field(default_factory=KeysFromDefault)
    limits: LimitDefaults = Field(default_factory=LimitDefaults)
    allowed_origins: tuple[Origin, ...] = Field(default=(), max_length=32)

    def keys_of(self, pool: ExpertPool) -> KeysFrom | None:
        """Return the Secret with a pool's API keys; None: it has none."""
        return pool.spec.gateway.keys_from or (self.keys_from if self.keys_from.secret else None)

    def limits_of(self, pool: ExpertPool) -> Limits:
        """Return a pool's limits: its own, or else the defaults here, or else those of the routing policy."""
        own = pool.spec.gateway.limits
        chosen = self.limits.model_dump(exclude_none=True)
        return Limits(**chosen | (own.model_dump(exclude_none=True) if own is not None else {}))

    def origins_of(self, pool: ExpertPool) -> tuple[str, ...] | None:
        """Return the origins whose pages may use a pool's gateway; None: none may."""
        own = pool.spec.gateway.allowed_origins
        return (tuple(own) if own is not None else self.allowed_origins) or None


class OperatorConfig(ConfigModel):
    """The whole configuration file."""

    images: Images
    profiles: dict[str, Profile]
    stores: dict[str, Store] = Field(default_factory=dict)
    graders: dict[GraderName, Grader] = Field(default_factory=dict)
    deadline_seconds: Deadlines = Field(default_factory=Deadlines)
    gateways: Gateways = Field(default_factory=Gateways)
    #: Presets that ``base.preset`` may name.
    presets: tuple[str, ...] = ("tiny",)
    #: Namespaces that are watched. Empty: all.
    namespaces: tuple[str, ...] = ()
    #: Number of workers, that is, of pools that can be reconciled at the same time.
    workers: int = 8
    #: Seconds between two sweeps, which list metadata and correct the cache.
    sweep_seconds: float = 300.0
    #: Seconds after which another operator may take a Lease that was not renewed.
    lease_seconds: float = 15.0
    #: Name of the Lease, in the operator's own namespace, whose holder acts. Each release of the chart has its own.
    lease: str = "moe-operator"
    #: Name of the Kueue queue that starts Jobs. Empty: the operator starts them itself.
    queue: str = ""

    def usable_stores(self, namespace: str) -> dict[str, Store]:
        """Return the data stores that Experts and evaluators of a namespace may use, by name."""
        return {name: item for name, item in self.stores.items() if _may_use(namespace, item)}

    def usable_graders(self, namespace: str) -> dict[str, Grader]:
        """Return the graders that pools of a namespace may name, by name."""
        return {name: item for name, item in self.graders.items() if _may_use(namespace, item)}


def _may_use(namespace: str, item: Store | Grader) -> bool:
    return not item.namespaces or namespace in item.namespaces
