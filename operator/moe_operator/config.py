"""What the platform's owner decides: images, hardware profiles, data stores, graders. Read from a mounted YAML file.

The chart writes the file from its values (ConfigMap ``moe-operator``, key ``config.yaml``). Users of the
API only refer to the names defined here.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class ConfigModel(BaseModel):
    """Strict: a misspelt value in the chart is an error at start, not a silent default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Images(ConfigModel):
    """Image references of the data plane."""

    trainer: str
    gateway: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


class Profile(ConfigModel):
    """Hardware that a pod asks for by name."""

    description: str = ""
    #: Extended resource that one device is, for example ``nvidia.com/gpu``; empty: plain CPU.
    device: str = ""
    #: Devices that a host lends only all together, as hosts of TPUs do; what is asked for is rounded up to it.
    host_devices: int = Field(default=1, ge=1)
    #: Requests and limits of a container, as in a pod spec.
    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    #: Replaces the trainer's image, for example one built for another accelerator.
    image: str | None = None
    #: Torch threads of a process.
    threads: int = 1


class S3(ConfigModel):
    """Objects of one bucket, in a store that speaks S3."""

    #: URL of the service; empty: AWS, by region.
    endpoint: str = Field(default="", pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?)?$")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$")
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")
    #: Folder of the bucket that sources lie beneath; empty: all of it.
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._/=-]*$")
    #: Secret in each namespace that may use the store, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, where
    #: needed AWS_SESSION_TOKEN and ca.crt; empty: the bucket is read anonymously.
    secret: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")


class Store(ConfigModel):
    """A data store: a claim of the user's namespace, mounted read-only, or a bucket."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["claim"]}, {"required": ["s3"]}]},
    )

    description: str = ""
    #: PersistentVolumeClaim in each namespace that may use the store.
    claim: str | None = None
    s3: S3 | None = None
    #: Namespaces that may use it; empty: all.
    namespaces: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.claim is None) == (self.s3 is None):
            raise ValueError("a store needs exactly one of claim and s3: keep one and remove the other")
        return self


#: Names of graders, as pools write them.
GraderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class Grader(ConfigModel):
    """A program in a container of its own that says which answers of an evaluator are right."""

    description: str = ""
    image: str = Field(min_length=1)
    #: The program and its arguments; empty: the image's own.
    command: tuple[str, ...] = ()
    #: Limits of its container, which are its requests, too; what they leave out is one core and 1 GiB.
    limits: dict[str, str] = Field(default_factory=dict)
    #: Seconds that it may take. The pod is stopped after those of all its graders, and ten minutes for the rest.
    timeout_seconds: int = Field(default=600, ge=1, le=86_400)
    #: Namespaces whose pools may name it; empty: all.
    namespaces: tuple[str, ...] = ()


class OperatorConfig(ConfigModel):
    """The whole file."""

    images: Images
    profiles: dict[str, Profile]
    stores: dict[str, Store] = Field(default_factory=dict)
    graders: dict[GraderName, Grader] = Field(default_factory=dict)
    #: Presets that ``base.preset`` may name.
    presets: tuple[str, ...] = ("tiny",)
    #: Namespaces watched; empty: all.
    namespaces: tuple[str, ...] = ()
    #: Queue workers.
    workers: int = 8
    #: Seconds between sweeps that re-list metadata and drop what is gone.
    sweep_seconds: float = 300.0
    #: Seconds a Lease is held without renewal.
    lease_seconds: float = 15.0
    #: Kueue queue label value for Jobs; empty: the operator starts Jobs itself.
    queue: str = ""
