"""The chart's values as models: charts/moe-operator/values.schema.json is generated from them.

A misspelt key is refused by `helm install`. What the operator reads is described by `moe_operator.config`;
only what the chart adds stands here.
"""

import json
from typing import Any, Literal

from pydantic import Field

from moe_operator.config import ConfigModel, Grader, GraderName, Profile, Store

_OBJECT = "As in a pod's spec."


class ImageName(ConfigModel):
    """One image: its name and its tag."""

    name: str = Field(min_length=1, description="Name with registry, without tag.")
    tag: str = Field(default="", description="Tag. Default: the chart's appVersion.")


class Images(ConfigModel):
    """Every image that is used."""

    operator: ImageName = Field(description="The operator itself.")
    gateway: ImageName = Field(description="The pools' gateways.")
    trainer: ImageName = Field(description="Jobs and expert servers; a profile may name another.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="For all."
    )
    pull_secrets: list[str] = Field(default_factory=list, description="Names of Secrets to pull with.")


class Crds(ConfigModel):
    """How the custom resource definitions are installed."""

    enabled: bool = Field(default=True, description="Install and upgrade them with the chart.")
    keep: bool = Field(
        default=True, description="Keep them, and every Expert, when the chart is uninstalled."
    )


class OperatorPod(ConfigModel):
    """The operator's Deployment."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is logged."
    )
    workers: int = Field(default=8, ge=1, le=256, description="Objects that are looked at concurrently.")
    sweep_seconds: float = Field(
        default=300, gt=0, description="Seconds between sweeps for missed deletions."
    )
    lease_seconds: float = Field(default=15, ge=5, description="Seconds a Lease is held without renewal.")
    resources: dict[str, Any] = Field(default_factory=dict, description=_OBJECT)
    node_selector: dict[str, str] = Field(default_factory=dict, description=_OBJECT)
    tolerations: list[dict[str, Any]] = Field(default_factory=list, description=_OBJECT)
    affinity: dict[str, Any] = Field(default_factory=dict, description=_OBJECT)
    priority_class_name: str = Field(default="", description=_OBJECT)
    pod_labels: dict[str, str] = Field(default_factory=dict, description="Further labels of the pod.")
    pod_annotations: dict[str, str] = Field(
        default_factory=dict, description="Further annotations of the pod."
    )


class ServiceAccount(ConfigModel):
    """Who the operator is."""

    create: bool = Field(default=True, description="Make the ServiceAccount.")
    name: str = Field(default="", description="Its name. Default: the release's.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Its annotations.")


class Rbac(ConfigModel):
    """What the operator and users may do."""

    create: bool = Field(default=True, description="Make the operator's roles and bindings.")
    aggregate: bool = Field(
        default=True, description="Add the custom resources to the roles view, edit and admin."
    )


class PodMonitor(ConfigModel):
    """Scraping by the Prometheus operator."""

    enabled: bool = Field(default=False, description="Make PodMonitors of the operator and of the gateways.")
    interval: str = Field(default="30s", pattern=r"^[0-9]+(ms|s|m)$", description="Between two scrapes.")
    labels: dict[str, str] = Field(default_factory=dict, description="What your Prometheus selects by.")


class PrometheusRule(ConfigModel):
    """Alerts."""

    enabled: bool = Field(default=False, description="Make the alerts.")
    labels: dict[str, str] = Field(default_factory=dict, description="What your Prometheus selects by.")


class Metrics(ConfigModel):
    """How the operator is watched."""

    service: bool = Field(default=True, description="Make a Service for the metrics port.")
    pod_monitor: PodMonitor = Field(default_factory=PodMonitor, description="Scraping.")
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule, description="Alerts.")


class NetworkPolicy(ConfigModel):
    """What may reach the operator's pod."""

    enabled: bool = Field(default=False, description="Let only the metrics and health ports be reached.")


class Values(ConfigModel):
    """charts/moe-operator/values.yaml."""

    name_override: str = Field(default="", max_length=40, description="Instead of the release's name.")
    crds: Crds = Field(default_factory=Crds, description="Custom resource definitions.")
    images: Images = Field(description="Every image that is used.")
    operator: OperatorPod = Field(default_factory=OperatorPod, description="The operator's Deployment.")
    namespaces: list[str] = Field(default_factory=list, description="Namespaces to act in. Default: all.")
    queue: str = Field(default="", max_length=63, description="Kueue's local queue for Jobs. Default: none.")
    presets: list[str] = Field(default_factory=list, description="Presets that base.preset may name.")
    profiles: dict[str, Profile | None] = Field(description="Hardware by name; null takes a preset out.")
    stores: dict[str, Store | None] = Field(default_factory=dict, description="Data stores by name.")
    graders: dict[GraderName, Grader | None] = Field(
        default_factory=dict,
        description="Programs that judge answers, by name.",
        json_schema_extra={"additionalProperties": False},
    )
    service_account: ServiceAccount = Field(
        default_factory=ServiceAccount, description="Who the operator is."
    )
    rbac: Rbac = Field(default_factory=Rbac, description="What it may do.")
    metrics: Metrics = Field(default_factory=Metrics, description="How it is watched.")
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy, description="What may reach it.")
    #: Helm passes this key to every chart.
    global_: dict[str, Any] = Field(
        default_factory=dict, alias="global", description="Passed by parent charts; unused."
    )


def values_schema_file() -> dict[str, str]:
    """Return path to text of the chart's schema."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Values.model_json_schema(by_alias=True),
    }
    return {"charts/moe-operator/values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}
