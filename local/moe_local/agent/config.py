"""The configuration of the node agent: one YAML or JSON file, checked before anything runs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LOOPBACK = IPv4Network("127.0.0.0/8")


def _inside_loopback(network: IPv4Network) -> IPv4Network:
    """Check that the network is part of 127.0.0.0/8, whose addresses pods can use without any set-up."""
    if not network.subnet_of(LOOPBACK):
        raise ValueError(f"{network} is not inside {LOOPBACK}: choose for example 127.77.0.0/16")
    if network.prefixlen > 28:
        raise ValueError(f"{network} has no room for pods: its prefix must be /28 or shorter")
    return network


def _absolute(path: Path) -> Path:
    """Refuse relative paths, whose meaning would depend on the folder that the agent is started in."""
    if not path.is_absolute():
        raise ValueError(f"{path} is relative: give an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class _Part(BaseModel):
    """Keys are camelCase in the file; unknown keys are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, validate_default=True
    )


class Image(_Part):
    """What replaces a container image: an installed Python environment."""

    environment: AbsolutePath = Field(
        description="Folder of a virtual environment; its bin/ comes first on PATH."
    )


class BackOff(_Part):
    """How long to wait before a container that has ended is restarted; the defaults are the kubelet's."""

    initial: float = Field(
        default=10.0, gt=0, description="Seconds before the second restart; the first is immediate."
    )
    maximum: float = Field(
        default=300.0, gt=0, description="Longest wait in seconds; each restart doubles the wait up to it."
    )
    reset_after: float = Field(
        default=600.0,
        gt=0,
        description="After a container has run for this many seconds, its wait starts from the beginning.",
    )


class AgentConfig(_Part):
    """Everything that the agent is told about its node. `moectl local up` writes it."""

    node_name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", description="Name of the Node object."
    )
    kubeconfig: AbsolutePath = Field(
        description="How to reach the API server: certificate-authority, client-certificate and client-key, as files. "
        "The user is system:node:<node name>, of the group system:nodes."
    )
    state_dir: AbsolutePath = Field(
        description="The agent's own folder (made with mode 0700): pods and volumes."
    )
    listen_address: IPv4Address = Field(
        default=IPv4Address("127.0.0.1"), description="Address on which the log endpoint listens."
    )
    listen_port: int = Field(
        gt=0, lt=65536, description="Port of the log endpoint, which the Node object announces."
    )
    serving_certificate: AbsolutePath = Field(
        description="PEM file with the serving certificate for the listen address."
    )
    serving_key: AbsolutePath = Field(description="PEM file with the key of the serving certificate.")
    client_ca: AbsolutePath = Field(
        description="PEM bundle; only clients with a certificate signed by it get an answer."
    )
    client_names: tuple[str, ...] = Field(
        default=(),
        description="Common names of the clients that get an answer; empty: any client with a certificate.",
    )
    images: dict[str, Image] = Field(
        default_factory=dict,
        description="Environments by image name (with or without tag). Any other image is refused.",
    )
    capacity: dict[str, str] = Field(
        default_factory=dict,
        description="Quantities by resource name: cpu, memory, pods, ephemeral-storage, and any extended resource. "
        "What is left out of the first four is measured.",
    )
    pod_network: Annotated[IPv4Network, AfterValidator(_inside_loopback)] = Field(
        default=IPv4Network("127.77.0.0/16"),
        description="Each pod gets one address of it. Clusters that run side by side need different networks.",
    )
    node_labels: dict[str, str] = Field(
        default_factory=dict, description="Labels in addition to those that the agent sets."
    )
    hidden_paths: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Folders that containers do not see where pods are isolated, such as the one with the cluster's keys.",
    )
    isolation: Literal["auto", "mount-namespace", "none"] = Field(
        default="auto", description="auto: mount-namespace if this machine allows it, else none."
    )
    back_off: BackOff = Field(default_factory=BackOff)
    heartbeat_seconds: float = Field(
        default=10.0, gt=0, description="Seconds between two renewals of the node's Lease."
    )
    drain_seconds: float = Field(
        default=8.0, ge=0, description="Seconds that pods may take to end after the agent gets SIGTERM."
    )

    @classmethod
    def read(cls, path: Path) -> AgentConfig:
        """Return the configuration in a file; raises `pydantic.ValidationError` naming each wrong field, or `OSError`."""
        return cls.model_validate(yaml.safe_load(path.read_text()))
