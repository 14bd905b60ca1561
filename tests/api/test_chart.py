"""What the chart makes of its values, and that the API server, RBAC and Pod Security take it."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from moe_formats.routing_policy import Limits
from moe_local.cluster import LocalCluster
from moe_operator.builders.pod import METRICS_PORT
from moe_operator.cluster.metrics import Metrics
from moe_operator.cluster.resources import EVENT, WATCHED
from moe_operator.config import Deadlines, OperatorConfig
from moe_operator.generate.values import Values

CHART = Path(__file__).parents[2] / "charts" / "moe-operator"

Render = Callable[..., list[dict[str, Any]]]
Object = dict[str, Any]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """The objects of a kind."""
    return [item for item in objects if item["kind"] == kind]


def config_of(objects: list[Object]) -> OperatorConfig:
    """What the operator would read."""
    (config,) = of_kind(objects, "ConfigMap")
    return OperatorConfig.model_validate(yaml.safe_load(config["data"]["config.yaml"]))


def test_the_operator_can_read_what_the_chart_writes(render: Render) -> None:
    config = config_of(render())
    assert set(config.profiles) == {"cpu", "nvidia", "gke-tpu-v5e"}
    assert config.profiles["nvidia"].device == "nvidia.com/gpu"
    assert config.profiles["gke-tpu-v5e"].node_selector["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert config.stores["corpora"].claim == "corpora"
    assert config.images.trainer == "moe-operator/trainer:0.1.0"


def test_a_preset_is_taken_out_by_null_and_another_profile_added(render: Render) -> None:
    profiles = {"nvidia": None, "big": {"requests": {"cpu": "32"}, "image": "team/trainer:2"}}
    config = config_of(render({"profiles": profiles, "stores": {"corpora": None}}))
    assert set(config.profiles) == {"cpu", "gke-tpu-v5e", "big"}
    assert config.profiles["big"].image == "team/trainer:2"
    assert config.stores == {}


def test_a_store_can_be_a_bucket(render: Render) -> None:
    s3 = {"endpoint": "https://objects.example.org", "bucket": "text", "secret": "lake-reader"}
    lake = config_of(render({"stores": {"lake": {"s3": s3}}})).stores["lake"].s3
    assert lake is not None
    assert (lake.endpoint, lake.bucket, lake.secret) == (s3["endpoint"], "text", "lake-reader")


def test_graders_are_those_of_the_values(render: Render) -> None:
    assert config_of(render()).graders == {}
    pytest = {"image": "registry.example/pytest:3", "command": ["grade"], "limits": {"memory": "2Gi"}}
    config = config_of(render({"graders": {"pytest": pytest, "old": None}}))
    assert set(config.graders) == {"pytest"}
    assert config.graders["pytest"].limits == {"memory": "2Gi"}


def test_every_value_of_the_operator_reaches_it(render: Render) -> None:
    values = {
        "queue": "trainings",
        "presets": ["tiny", "small"],
        "namespaces": ["a", "b"],
        "operator": {"workers": 3, "sweepSeconds": 60, "leaseSeconds": 20},
        "images": {"pullSecrets": ["key"], "pullPolicy": "Always", "gateway": {"tag": "9"}},
    }
    config = config_of(render(values))
    assert (config.queue, config.presets, config.namespaces) == ("trainings", ("tiny", "small"), ("a", "b"))
    assert (config.workers, config.sweep_seconds, config.lease_seconds) == (3, 60, 20)
    assert (config.images.pull_secrets, config.images.pull_policy) == (("key",), "Always")
    assert config.images.gateway == "moe-operator/gateway:9"


def test_gateways_are_those_of_the_values_and_by_default_those_of_the_operator(render: Render) -> None:
    default = config_of(render()).gateways
    assert (default.keys_from.secret, default.allowed_origins) == ("", ())
    assert default.limits.model_dump() == Limits().model_dump()
    values = {
        "keysFrom": {"secret": "gateway-keys"},
        "limits": {"maxTokens": 99},
        "allowedOrigins": ["http://a:3000"],
    }
    gateways = config_of(render({"gateways": values})).gateways
    assert (gateways.keys_from.secret, gateways.keys_from.key) == ("gateway-keys", "keys")
    assert gateways.limits.model_dump() == Limits(max_tokens=99).model_dump()
    assert gateways.allowed_origins == ("http://a:3000",)


def test_deadlines_are_those_of_the_values_and_by_default_those_of_the_operator(render: Render) -> None:
    assert config_of(render()).deadline_seconds == Deadlines()
    config = config_of(render({"deadlineSeconds": {"train": 7_776_000}}))
    assert config.deadline_seconds == Deadlines(train=7_776_000)


def test_the_operators_pod_cannot_fill_the_disk_of_its_node(render: Render) -> None:
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["ephemeral-storage"]
    assert all("emptyDir" not in volume or volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])


def test_a_changed_configuration_starts_the_operator_again(render: Render) -> None:
    def template(values: Object) -> Object:
        (deployment,) = of_kind(render(values), "Deployment")
        return dict(deployment["spec"]["template"])

    assert template({}) == template({"metrics": {"service": False}})
    assert template({}) != template({"presets": ["tiny", "small"]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"profils": {}}, "profils"),
        ({"profiles": {"cpu": {"thread": 2}}}, "thread"),
        ({"operator": {"workers": 0}}, "workers"),
        ({"deadlineSeconds": {"train": 0}}, "train"),
        ({"deadlineSeconds": {"training": 60}}, "training"),
        ({"networkPolicy": {"dnsPorts": [0]}}, "dnsPorts"),
        ({"gateways": {"keysFrom": {"secret": "database"}}}, "secret"),
        ({"gateways": {"limits": {"maxToken": 5}}}, "maxToken"),
        ({"gateways": {"allowedOrigins": ["*.example.org"]}}, "allowedOrigins"),
        ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"stores": {"lake": {}}}, "lake"),
        ({"graders": {"pytest": {"command": ["grade"]}}}, "pytest"),
        ({"graders": {"Pytest": {"image": "a"}}}, "Pytest"),
        ({"stores": {"lake": {"s3": {"bucket": "text", "secretAccessKey": "x"}}}}, "secretAccessKey"),
    ],
)
def test_a_misspelt_or_bad_value_is_refused_by_name(render: Render, values: Object, message: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render(values)
    assert message in caught.value.stderr


def test_the_schema_asks_for_every_key_so_that_null_takes_none_away() -> None:
    """Helm drops a key that is null before it validates, and a template would go on without the chart's default."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in set(_keys(Values)) - {"global"}:
        node = schema
        for name in path.split("."):
            assert name in node["required"], path
            node = node["properties"][name]
            node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


@pytest.mark.parametrize(
    "path", ["queue", "crds.keep", "operator.workers", "operator", "deadlineSeconds.train"]
)
def test_null_is_refused_by_the_name_of_its_key(render: Render, path: str) -> None:
    values: Any = None
    for name in reversed(path.split(".")):
        values = {name: values}
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render(values)
    assert f"missing property '{path.rpartition('.')[2]}'" in caught.value.stderr


def test_values_yaml_documents_every_value() -> None:
    written = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(_keys(Values)) - {"global"} <= set(_flat(written)), "a value is missing from values.yaml"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{path}.")
        else:
            yield path


def _flat(value: Object, prefix: str = "") -> Iterator[str]:
    for key, child in value.items():
        yield f"{prefix}{key}"
        if isinstance(child, dict):
            yield from _flat(child, f"{prefix}{key}.")


def rules_of(objects: list[Object], kind: str, name: str) -> list[Object]:
    """The rules of a role."""
    return next(list(item["rules"]) for item in of_kind(objects, kind) if item["metadata"]["name"] == name)


def test_the_operator_may_read_what_it_watches_and_has_no_wildcard_and_no_secrets(render: Render) -> None:
    rules = rules_of(render(), "ClusterRole", "moe-operator")
    allowed = {
        (group, resource): set(rule["verbs"])
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for resource in WATCHED:
        assert {"get", "list", "watch"} <= allowed[(resource.group, resource.plural)], resource.plural
    assert "create" in allowed[(EVENT.group, EVENT.plural)]
    for (group, resource_name), verbs in allowed.items():
        assert "*" not in (group, resource_name) and "*" not in verbs
        assert resource_name not in ("secrets", "pods/exec", "nodes", "namespaces")
    own = {"get", "list", "watch", "create", "delete"}
    assert allowed[("moe-operator.dev", "expertproposals")] == own, "it neither changes nor approves one"
    for kind in ("experts", "expertpools"):
        assert allowed[("moe-operator.dev", kind)] == {"get", "list", "watch"}, "a spec belongs to its author"


def test_a_list_of_namespaces_gives_rights_in_those_only(render: Render) -> None:
    objects = render({"namespaces": ["a", "b"]})
    assert {item["metadata"]["name"] for item in of_kind(objects, "ClusterRole")} == {
        "moe-operator-view",
        "moe-operator-edit",
        "moe-operator-approve",
    }
    assert of_kind(objects, "ClusterRoleBinding") == []
    roles = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in of_kind(objects, "Role")}
    assert roles == {("a", "moe-operator"), ("b", "moe-operator"), ("moe-system", "moe-operator-lease")}


def test_crds_are_kept_or_left_out_as_asked(render: Render) -> None:
    kind = "CustomResourceDefinition"
    assert len(of_kind(render(), kind)) == 4
    for crd in of_kind(render(), kind):
        assert crd["metadata"]["annotations"] == {
            "helm.sh/resource-policy": "keep",
            "argocd.argoproj.io/sync-options": "Prune=false",
        }
    for crd in of_kind(render({"crds": {"keep": False}}), kind):
        assert "annotations" not in crd["metadata"]
    assert of_kind(render({"crds": {"enabled": False}}), kind) == []


def test_argo_cd_never_prunes_a_crd_of_the_folder() -> None:
    for file in (CHART.parents[1] / "crds").glob("*.yaml"):
        annotations = yaml.load(file.read_text(), yaml.CSafeLoader)["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false"


def test_the_charts_crds_are_those_of_the_folder(render: Render) -> None:
    for crd in of_kind(render(), "CustomResourceDefinition"):
        file = CHART.parents[1] / "crds" / f"{crd['spec']['names']['plural']}.yaml"
        assert yaml.load(file.read_text(), yaml.CSafeLoader)["spec"] == crd["spec"]


def test_monitors_alerts_and_network_policy_come_when_asked_for(render: Render) -> None:
    kinds = {"PodMonitor", "PrometheusRule", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert not kinds & {item["kind"] for item in render({"approvalPolicy": {"enabled": False}})}
    assert len(of_kind(render(), "ValidatingAdmissionPolicy")) == 1, "the one for approvals is on by default"
    labels = {"release": "prometheus"}
    values = {
        "metrics": {
            "podMonitor": {"enabled": True, "labels": labels},
            "prometheusRule": {"enabled": True, "labels": labels},
        },
        "networkPolicy": {"enabled": True},
        "admissionPolicy": {"enabled": True},
    }
    objects = render(values)
    assert kinds <= {item["kind"] for item in objects}
    assert len(of_kind(objects, "ValidatingAdmissionPolicy")) == 2
    assert len(of_kind(objects, "PodMonitor")) == 2
    for item in of_kind(objects, "PodMonitor") + of_kind(objects, "PrometheusRule"):
        assert item["metadata"]["labels"]["release"] == "prometheus"


def test_what_is_scraped_is_a_port_of_every_pod_that_it_selects(render: Render) -> None:
    """Of gateways and servers, the port for metrics and not the one for requests."""
    golden = CHART.parents[1] / "tests/unit/moe_operator/builders/golden/cpu.yaml"
    made = [
        item
        for item in yaml.load_all(golden.read_text(), yaml.CSafeLoader)
        if item and item["kind"] == "Deployment"
    ]
    monitors = of_kind(render({"metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")
    (pools,) = (item for item in monitors if item["metadata"]["name"].endswith("-pools"))
    (endpoint,) = pools["spec"]["podMetricsEndpoints"]
    assert len(made) == 2
    for deployment in made:
        ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
        (port,) = (item for item in ports if item["name"] == endpoint["port"])
        assert port["containerPort"] == METRICS_PORT


def test_alerts_name_series_that_the_operator_has(render: Render) -> None:
    families = Metrics().registry.collect()
    series = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    (rule,) = of_kind(render({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    for alert in rule["spec"]["groups"][0]["rules"]:
        named = set(re.findall(r"moe_operator_[a-z_]+", alert["expr"]))
        assert named and named <= series, alert["alert"]


@pytest.fixture(scope="module")
def installed(cluster: LocalCluster, programs: Path) -> LocalCluster:
    """The chart, installed by helm into a namespace under Pod Security's `restricted`."""
    helm(
        cluster,
        programs,
        "upgrade",
        "--install",
        "moe-operator",
        str(CHART),
        "-n",
        "moe-system",
        "--set",
        "crds.enabled=false",
    )
    return cluster


def helm(cluster: LocalCluster, programs: Path, *arguments: str) -> str:
    """Run helm on the cluster."""
    environment = os.environ | cluster.variables()
    command = [str(programs / "helm"), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_releases_limited_to_other_namespaces_live_side_by_side(
    cluster: LocalCluster, programs: Path
) -> None:
    for name in ("left", "right"):
        cluster.kubectl("create", "namespace", name)
    common = ("-n", "left", "--set", "crds.enabled=false", "--set", "rbac.aggregate=false", "--set")
    helm(cluster, programs, "install", "one", str(CHART), *common, "namespaces={left}")
    try:
        helm(cluster, programs, "upgrade", "one", str(CHART), *common, "namespaces={left}")
        helm(
            cluster, programs, "install", "two", str(CHART), *common, "namespaces={right}", "--dry-run=server"
        )
        with pytest.raises(subprocess.CalledProcessError) as caught:
            helm(cluster, programs, "install", "two", str(CHART), *common, "namespaces={right,left}")
        assert "release one in namespace left acts in namespace left" in caught.value.stderr
        with pytest.raises(subprocess.CalledProcessError) as caught:
            helm(
                cluster, programs, "install", "two", str(CHART), "-n", "right", "--set", "crds.enabled=false"
            )
        assert "release one in namespace left acts in namespace left" in caught.value.stderr
    finally:
        helm(cluster, programs, "uninstall", "one", "-n", "left")


def test_a_release_that_overlaps_with_another_is_refused(installed: LocalCluster, programs: Path) -> None:
    def install(namespace: str, *settings: str) -> str:
        sets = [word for setting in ("crds.enabled=false", *settings) for word in ("--set", setting)]
        try:
            return helm(
                installed,
                programs,
                "install",
                "second",
                str(CHART),
                "-n",
                namespace,
                "--dry-run=server",
                *sets,
            )
        except subprocess.CalledProcessError as error:
            return str(error.stderr)

    first = "release moe-operator in namespace moe-system"
    assert f"{first} acts in all namespaces" in install("team")
    assert f"{first} acts in all namespaces" in install("team", "namespaces={team}")


def test_each_release_has_a_lease_of_its_own(render: Render) -> None:
    objects = render({"nameOverride": "second"})
    assert config_of(objects).lease == "second"
    (rule,) = (rule for rule in rules_of(objects, "Role", "second-lease") if "resourceNames" in rule)
    assert rule["resourceNames"] == ["second"]
    assert config_of(render()).lease == "moe-operator"


def test_the_operators_pod_passes_pod_security(installed: LocalCluster) -> None:
    """Under `enforce=restricted` a pod is made only if it passes."""
    installed.kubectl(
        "wait", "-n", "moe-system", "--for=condition=PodScheduled=false", "pod", "--timeout=120s",
        "-l", "app.kubernetes.io/instance=moe-operator",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("list", "experts.moe-operator.dev", "team", True),
        ("patch", "experts.moe-operator.dev", "team", False),
        ("patch", "experts.moe-operator.dev/status", "team", True),
        ("create", "jobs.batch", "team", True),
        ("get", "secrets", "team", False),
        ("create", "persistentvolumeclaims", "team", True),
        ("patch", "persistentvolumeclaims", "team", False),
        ("delete", "persistentvolumeclaims", "team", False),
        ("delete", "configmaps", "team", False),
        ("patch", "expertrevisions.moe-operator.dev", "team", False),
        ("delete", "expertrevisions.moe-operator.dev", "team", False),
        ("patch", "deployments.apps/scale", "team", True),
        ("update", "deployments.apps/scale", "team", False),
        ("create", "leases.coordination.k8s.io", "moe-system", True),
        ("update", "leases.coordination.k8s.io/moe-operator", "moe-system", True),
        ("update", "leases.coordination.k8s.io/another", "moe-system", False),
        ("delete", "leases.coordination.k8s.io/moe-operator", "moe-system", False),
        ("update", "leases.coordination.k8s.io/moe-operator", "team", False),
        ("create", "pods", "team", False),
    ],
)
def test_what_the_operators_account_may_do(
    installed: LocalCluster, verb: str, resource: str, namespace: str, allowed: bool
) -> None:
    assert (
        can(installed, "system:serviceaccount:moe-system:moe-operator", verb, resource, namespace) is allowed
    )


def can(cluster: LocalCluster, user: str, verb: str, resource: str, namespace: str) -> bool:
    """Whether RBAC lets a user do something; what follows a slash is a subresource, or the name of a Lease."""
    extra: tuple[str, ...] = ()
    if not resource.startswith("leases"):
        resource, _, subresource = resource.partition("/")
        extra = ("--subresource", subresource) if subresource else ()
    command = ("auth", "can-i", verb, resource, "-n", namespace, "--as", user, *extra)
    return cluster.kubectl(*command, check=False).stdout.strip() == "yes"


def test_the_clusters_own_roles_cover_experts(installed: LocalCluster) -> None:
    for user, role in (("reader", "view"), ("writer", "edit")):
        binding = f"{user}-{role}"
        installed.kubectl(
            "create", "rolebinding", binding, "-n", "team", f"--clusterrole={role}", f"--user={user}"
        )
    experts, revisions = "experts.moe-operator.dev", "expertrevisions.moe-operator.dev"
    assert can(installed, "reader", "get", experts, "team")
    assert not can(installed, "reader", "create", experts, "team")
    assert can(installed, "writer", "create", experts, "team")
    assert can(installed, "writer", "get", revisions, "team")
    assert not can(installed, "writer", "create", revisions, "team")
    proposals = "expertproposals.moe-operator.dev"
    installed.kubectl(
        "create", "rolebinding", "owner-admin", "-n", "team", "--clusterrole=admin", "--user=owner"
    )
    may = {
        user: {
            verb
            for verb in ("get", "create", "patch", "delete", "approve")
            if can(installed, user, verb, proposals, "team")
        }
        for user in ("reader", "writer", "owner")
    }
    assert may["reader"] == {"get"}
    assert may["writer"] == {"get", "create", "patch", "delete"}
    assert may["owner"] == {*may["writer"], "approve"}


def test_upgrading_to_the_same_changes_nothing_and_uninstalling_leaves_the_crds(
    installed: LocalCluster, programs: Path
) -> None:
    def deployment() -> Object:
        live = json.loads(
            installed.kubectl("get", "-n", "moe-system", "deployment/moe-operator", "-o", "json").stdout
        )
        return dict(live["spec"])

    before = deployment()
    helm(
        installed,
        programs,
        "upgrade",
        "moe-operator",
        str(CHART),
        "-n",
        "moe-system",
        "--reset-then-reuse-values",
    )
    assert deployment() == before
    helm(
        installed,
        programs,
        "upgrade",
        "moe-operator",
        str(CHART),
        "-n",
        "moe-system",
        "--set",
        "crds.enabled=true",
        "--take-ownership",
    )
    helm(installed, programs, "uninstall", "moe-operator", "-n", "moe-system")
    names = installed.kubectl("get", "crd", "-o", "name").stdout
    assert "experts.moe-operator.dev" in names
