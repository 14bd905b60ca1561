"""What the platform's owner decides: images, hardware profiles, data stores. Read from a mounted YAML file.

The chart writes the file from its values (ConfigMap ``moe-operator``, key ``config.yaml``). Users of the
API only refer to the names defined here.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
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


class Store(ConfigModel):
    """A data store: a claim of the user's namespace, mounted read-only."""

    description: str = ""
    #: PersistentVolumeClaim in each namespace that may use the store.
    claim: str
    #: Namespaces that may use it; empty: all.
    namespaces: tuple[str, ...] = ()


class OperatorConfig(ConfigModel):
    """The whole file."""

    images: Images
    profiles: dict[str, Profile]
    stores: dict[str, Store] = Field(default_factory=dict)
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
