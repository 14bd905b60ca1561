"""The chart's values as models: charts/moe-operator/values.schema.json is generated from them.

With the schema, `helm install` refuses a misspelt key. The part of the values that the operator reads is defined in
`moe_operator.config`; this file defines what only the chart reads.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from moe_operator.config import ConfigModel, Deadlines, Gateways, Grader, GraderName, Profile, Store

_POD_FIELD = "The pod's field of the same name, as Kubernetes defines it."


class ImageName(ConfigModel):
    """A container image, by name and tag."""

    name: str = Field(min_length=1, description="Name of the image, with its registry and without a tag.")
    tag: str = Field(default="", description="Tag of the image. Default: the chart's appVersion.")


class Images(ConfigModel):
    """The images of all programs."""

    operator: ImageName = Field(description="Image of the operator.")
    gateway: ImageName = Field(description="Image of the pools' gateways.")
    trainer: ImageName = Field(
        description="Image of Jobs and expert servers. A hardware profile may name another."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When images are pulled, for all pods."
    )
    pull_secrets: list[str] = Field(
        default_factory=list, description="Names of Secrets with credentials for pulling images."
    )


class Crds(ConfigModel):
    """How the custom resource definitions are installed."""

    enabled: bool = Field(default=True, description="Install and upgrade the CRDs together with the chart.")
    keep: bool = Field(
        default=True, description="Keep the CRDs, and every Expert, when the chart is uninstalled."
    )


class OperatorPod(ConfigModel):
    """The operator's Deployment."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level of messages that are logged."
    )
    workers: int = Field(
        default=8, ge=1, le=256, description="Number of objects that are reconciled at the same time."
    )
    sweep_seconds: float = Field(
        default=300, gt=0, description="Seconds between searches for deletions that were missed."
    )
    lease_seconds: float = Field(
        default=15, ge=5, description="Seconds for which a Lease is held without renewal."
    )
    resources: dict[str, Any] = Field(default_factory=dict, description=_POD_FIELD)
    node_selector: dict[str, str] = Field(default_factory=dict, description=_POD_FIELD)
    tolerations: list[dict[str, Any]] = Field(default_factory=list, description=_POD_FIELD)
    affinity: dict[str, Any] = Field(default_factory=dict, description=_POD_FIELD)
    priority_class_name: str = Field(default="", description=_POD_FIELD)
    pod_labels: dict[str, str] = Field(default_factory=dict, description="Additional labels of the pod.")
    pod_annotations: dict[str, str] = Field(
        default_factory=dict, description="Additional annotations of the pod."
    )


class ServiceAccount(ConfigModel):
    """The ServiceAccount of the operator."""

    create: bool = Field(default=True, description="Create the ServiceAccount.")
    name: str = Field(default="", description="Name of the ServiceAccount. Default: the release's name.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Annotations of the ServiceAccount."
    )


class Rbac(ConfigModel):
    """Permissions of the operator and of users."""

    create: bool = Field(default=True, description="Create the operator's roles and bindings.")
    aggregate: bool = Field(
        default=True, description="Add the custom resources to the roles view, edit and admin."
    )


class AdmissionPolicy(ConfigModel):
    """What the API server refuses to the operator's account."""

    enabled: bool = Field(
        default=False,
        description="Limit the operator's account to its own objects, and its pods to no credentials.",
    )


class ApprovalPolicy(ConfigModel):
    """Who may decide about proposals."""

    enabled: bool = Field(
        default=True,
        description="Refuse to approve, reject or undo an ExpertProposal to whoever does not have the verb approve.",
    )


class PodMonitor(ConfigModel):
    """Scraping by the Prometheus operator, through PodMonitors."""

    enabled: bool = Field(default=False, description="Create PodMonitors for the operator and the gateways.")
    interval: str = Field(default="30s", pattern=r"^[0-9]+(ms|s|m)$", description="Time between scrapes.")
    labels: dict[str, str] = Field(default_factory=dict, description="What your Prometheus selects by.")


class PrometheusRule(ConfigModel):
    """Alerts of the Prometheus operator, through a PrometheusRule."""

    enabled: bool = Field(default=False, description="Create the alerts.")
    labels: dict[str, str] = Field(default_factory=dict, description="What your Prometheus selects by.")


class Metrics(ConfigModel):
    """How the operator is monitored."""

    service: bool = Field(default=True, description="Create a Service for the metrics port.")
    pod_monitor: PodMonitor = Field(
        default_factory=PodMonitor, description="Scraping by the Prometheus operator."
    )
    prometheus_rule: PrometheusRule = Field(
        default_factory=PrometheusRule, description="Alerts of the Prometheus operator."
    )


_PEERS = "Peers as in a NetworkPolicy."


class NetworkPolicy(ConfigModel):
    """Who can reach the pods of this release and of pools, and whom those of pools can reach."""

    enabled: bool = Field(
        default=False, description="Restrict connections to the operator, and to and from pods of pools."
    )
    namespaces: list[str] = Field(
        default_factory=list,
        description="Namespaces of pools that get the policies, in addition to those that the operator is limited to.",
    )
    clients: list[dict[str, Any]] = Field(
        default_factory=list, description=f"Who may send requests to gateways. {_PEERS} Default: everybody."
    )
    monitoring: list[dict[str, Any]] = Field(
        default_factory=list, description=f"Who may read metrics. {_PEERS} Default: nobody."
    )
    buckets: list[dict[str, Any]] = Field(
        default_factory=list,
        description=f"What snapshot Jobs may connect to if a data store is a bucket. {_PEERS} Default: everything.",
    )
    dns_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default_factory=lambda: [53], description="Ports of the cluster's DNS servers."
    )


class Values(ConfigModel):
    """charts/moe-operator/values.yaml."""

    name_override: str = Field(
        default="",
        max_length=40,
        description="Name to use instead of the release's. Default: the release's name.",
    )
    crds: Crds = Field(default_factory=Crds, description="How the CRDs are installed.")
    images: Images = Field(description="The images of all programs.")
    operator: OperatorPod = Field(default_factory=OperatorPod, description="The operator's Deployment.")
    namespaces: list[str] = Field(
        default_factory=list, description="Namespaces that the operator watches. Default: all."
    )
    queue: str = Field(default="", max_length=63, description="Local queue of Kueue for Jobs. Default: none.")
    presets: list[str] = Field(
        default_factory=list, description="Names of the presets that base.preset may have."
    )
    profiles: dict[str, Profile | None] = Field(
        description="Hardware profiles by name. null removes one that the chart has."
    )
    stores: dict[str, Store | None] = Field(
        default_factory=dict, description="Data stores by name. null removes one."
    )
    graders: dict[GraderName, Grader | None] = Field(
        default_factory=dict,
        description="Graders, which are programs that judge answers, by name. null removes one.",
        json_schema_extra={"additionalProperties": False},
    )
    deadline_seconds: Deadlines = Field(
        default_factory=Deadlines, description="Seconds that the pod of a Job may run, by what the Job does."
    )
    gateways: Gateways = Field(
        default_factory=Gateways,
        description="Keys, limits and origins of the gateways whose pools do not say otherwise.",
    )
    service_account: ServiceAccount = Field(
        default_factory=ServiceAccount, description="The ServiceAccount of the operator."
    )
    rbac: Rbac = Field(default_factory=Rbac, description="Permissions of the operator and of users.")
    admission_policy: AdmissionPolicy = Field(
        default_factory=AdmissionPolicy, description="What the API server refuses to the operator's account."
    )
    approval_policy: ApprovalPolicy = Field(
        default_factory=ApprovalPolicy, description="Who may decide about proposals."
    )
    metrics: Metrics = Field(default_factory=Metrics, description="How the operator is monitored.")
    network_policy: NetworkPolicy = Field(
        default_factory=NetworkPolicy, description="Who can reach the pods of this release and of pools."
    )
    #: Helm passes this key to every chart.
    global_: dict[str, Any] = Field(
        default_factory=dict, alias="global", description="Values that parent charts pass. Not read."
    )


#: The only key that values.yaml does not have: parent charts may pass it.
_OPTIONAL = "global"


def values_schema_file() -> dict[str, str]:
    """Return path to text of the chart's schema.

    It requires every key that values.yaml has. Helm takes a key away that a user sets to null, and the templates would go
    on as if the default were false or empty.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Values.model_json_schema(by_alias=True),
    }
    _require_all(schema, schema["$defs"])
    return {"charts/moe-operator/values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}


def _require_all(node: dict[str, Any], definitions: Mapping[str, Any]) -> None:
    """Require every key of a part of the values, and of the parts in it. Entries of maps are the user's own."""
    node["required"] = [name for name in node["properties"] if name != _OPTIONAL]
    for child in node["properties"].values():
        if "$ref" in child:
            _require_all(definitions[child["$ref"].removeprefix("#/$defs/")], definitions)
