"""Who reaches whom under the chart's NetworkPolicies, and that the API server takes them.

The policies are evaluated here, on pods as the builders make them. The small cluster of one machine enforces none.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.api.direct import ApiServer, path_of
from tests.api.network_policies import Endpoint, may_connect

from moe_local.cluster import LocalCluster
from moe_operator.builders.pod import GATEWAY_PORT, METRICS_PORT, PROGRESS_PORT, SERVER_PORT
from moe_operator.state import Role

CHART = Path(__file__).parents[2] / "charts" / "moe-operator"
GOLDEN = Path(__file__).parents[1] / "unit" / "moe_operator" / "builders" / "golden"

Render = Callable[..., list[dict[str, Any]]]
Object = dict[str, Any]

MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
INGRESS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}},
    "podSelector": {"matchLabels": {"app": "nginx"}},
}
LAKE = {"lake": {"s3": {"bucket": "text"}}}
SSH, DNS, ANY = 22, 53, 23_456


def policies_of(render: Render, values: Object) -> list[Object]:
    """The NetworkPolicies that the chart makes of values."""
    enabled = {"enabled": True, **values.pop("networkPolicy", {})}
    objects = render({**values, "networkPolicy": enabled})
    return [item for item in objects if item["kind"] == "NetworkPolicy"]


def pod_of(owner: Object, namespace: str) -> Endpoint:
    """A pod of a Deployment or a Job, with the labels and named ports of its template."""
    template = owner["spec"]["template"]
    ports = template["spec"]["containers"][0].get("ports", ())
    return Endpoint(
        namespace,
        template["metadata"]["labels"],
        {port["name"]: port["containerPort"] for port in ports},
    )


@pytest.fixture(scope="module")
def pods(render: Render) -> dict[str, Endpoint]:
    """Pods of namespace `team` by role, those of `other` as other-ROLE, and who else may be in or near a cluster."""
    made = [
        item
        for file in ("cpu.yaml", "measuring.yaml")
        for item in yaml.load_all((GOLDEN / file).read_text(), yaml.CSafeLoader)
        if item
    ]
    owners = {
        item["metadata"]["labels"]["moe-operator.dev/role"]: item
        for item in made
        if item["kind"] in ("Job", "Deployment")
    }
    assert set(owners) == {str(role) for role in Role if role not in (Role.STORE, Role.OBSERVATIONS)}, (
        "a role has no golden manifest"
    )
    (operator,) = [item for item in render() if item["kind"] == "Deployment"]
    return {
        **{role: pod_of(owner, "team") for role, owner in owners.items()},
        **{f"other-{role}": pod_of(owner, "other") for role, owner in owners.items()},
        "operator": pod_of(operator, "moe-system"),
        "somebody": Endpoint("team", {"app": "notebook"}),
        "elsewhere": Endpoint("elsewhere", {"app": "notebook"}),
        # Labels of ours do not help in another namespace.
        "impostor": Endpoint("elsewhere", pod_of(owners["gateway"], "elsewhere").labels),
        "false-operator": Endpoint("elsewhere", pod_of(operator, "elsewhere").labels),
        "prometheus": Endpoint("monitoring", {"app": "prometheus"}),
        "nginx": Endpoint("ingress", {"app": "nginx"}),
        "dns": Endpoint("kube-system", {"k8s-app": "kube-dns"}),
        "internet": Endpoint(None, address="203.0.113.7"),
        "metadata": Endpoint(None, address="169.254.169.254"),
    }


#: From, to, port, whether it is allowed.
TABLE = [
    # Clients reach gateways, and there only the port for requests.
    ("somebody", "gateway", GATEWAY_PORT, True),
    ("elsewhere", "gateway", GATEWAY_PORT, True),
    ("internet", "gateway", GATEWAY_PORT, True),
    ("somebody", "gateway", METRICS_PORT, False),
    ("internet", "gateway", METRICS_PORT, False),
    ("somebody", "gateway", SSH, False),
    # The operator asks gateways for their policy, and both kinds what they counted. Only Prometheus reads metrics.
    ("operator", "gateway", METRICS_PORT, True),
    ("operator", "server", METRICS_PORT, True),
    ("false-operator", "server", METRICS_PORT, False),
    ("false-operator", "gateway", METRICS_PORT, False),
    ("prometheus", "gateway", METRICS_PORT, True),
    ("prometheus", "server", METRICS_PORT, True),
    ("prometheus", "server", SERVER_PORT, False),
    # Servers are reached through the gateway of their namespace, and in no other way.
    ("gateway", "server", SERVER_PORT, True),
    ("gateway", "server", METRICS_PORT, False),
    ("somebody", "server", SERVER_PORT, False),
    ("elsewhere", "server", SERVER_PORT, False),
    ("impostor", "server", SERVER_PORT, False),
    ("other-gateway", "server", SERVER_PORT, False),
    ("internet", "server", SERVER_PORT, False),
    ("operator", "server", SERVER_PORT, False),
    ("server", "server", SERVER_PORT, False),
    ("train", "server", SERVER_PORT, False),
    ("grade", "server", SERVER_PORT, False),
    # A gang talks among itself; the operator reads its progress.
    ("train", "train", ANY, True),
    ("other-train", "train", ANY, False),
    ("somebody", "train", ANY, False),
    ("operator", "train", PROGRESS_PORT, True),
    ("operator", "train", ANY, False),
    ("prometheus", "train", PROGRESS_PORT, True),
    ("somebody", "train", PROGRESS_PORT, False),
    ("grade", "train", ANY, False),
    # What goes out.
    ("train", "dns", DNS, True),
    ("train", "internet", 443, False),
    ("train", "metadata", 80, False),
    ("train", "gateway", GATEWAY_PORT, False),
    ("gateway", "dns", DNS, True),
    ("gateway", "internet", 443, False),
    ("gateway", "other-server", SERVER_PORT, False),
    ("gateway", "metadata", 80, False),
    ("server", "dns", DNS, False),
    ("server", "internet", 443, False),
    ("server", "gateway", GATEWAY_PORT, False),
    *(
        (role, target, 443, False)
        for role in ("grade", "evaluate", "drift", "matrix", "distill")
        for target in ("internet", "dns")
    ),
    *((role, "dns", DNS, False) for role in ("grade", "evaluate", "drift", "matrix", "distill")),
    *(
        ("somebody", role, ANY, False)
        for role in ("grade", "evaluate", "drift", "matrix", "distill", "snapshot")
    ),
    ("snapshot", "internet", 443, True),
    ("snapshot", "dns", DNS, True),
    ("snapshot", "server", SERVER_PORT, False),
]


@pytest.fixture(scope="module")
def policies(render: Render) -> list[Object]:
    """The policies of an operator that acts in `team` and `other`, with a bucket and a Prometheus."""
    values = {"namespaces": ["team", "other"], "stores": LAKE, "networkPolicy": {"monitoring": [MONITORING]}}
    return policies_of(render, values)


@pytest.mark.parametrize(("source", "target", "port", "allowed"), TABLE)
def test_who_reaches_whom(
    policies: list[Object], pods: dict[str, Endpoint], source: str, target: str, port: int, allowed: bool
) -> None:
    assert may_connect(policies, pods[source], pods[target], port) is allowed


def test_names_are_resolved_over_udp(policies: list[Object], pods: dict[str, Endpoint]) -> None:
    assert may_connect(policies, pods["train"], pods["dns"], DNS, "UDP")
    assert not may_connect(policies, pods["train"], pods["internet"], 123, "UDP")
    assert not may_connect(policies, pods["server"], pods["dns"], DNS, "UDP")


def test_the_operators_metrics_are_for_prometheus(policies: list[Object], pods: dict[str, Endpoint]) -> None:
    operator = pods["operator"]
    for source, allowed in (("prometheus", True), ("elsewhere", False), ("internet", False)):
        assert may_connect(policies, pods[source], operator, operator.ports["metrics"]) is allowed
    assert may_connect(policies, pods["elsewhere"], operator, operator.ports["health"])


def test_without_policies_everybody_reaches_servers(pods: dict[str, Endpoint]) -> None:
    """The attack that the policies are there for: past the gateway, from another namespace."""
    assert may_connect([], pods["elsewhere"], pods["server"], SERVER_PORT)


def test_clients_can_be_named(render: Render, pods: dict[str, Endpoint]) -> None:
    named = policies_of(render, {"namespaces": ["team"], "networkPolicy": {"clients": [INGRESS]}})
    assert may_connect(named, pods["nginx"], pods["gateway"], GATEWAY_PORT)
    for stranger in ("somebody", "elsewhere", "internet", "prometheus"):
        assert not may_connect(named, pods[stranger], pods["gateway"], GATEWAY_PORT)
    assert may_connect(named, pods["operator"], pods["gateway"], METRICS_PORT)


def test_nobody_reads_metrics_unless_named(render: Render, pods: dict[str, Endpoint]) -> None:
    unnamed = policies_of(render, {"namespaces": ["team"]})
    for target in ("gateway", "server", "operator"):
        port = pods[target].ports["metrics"]
        assert not may_connect(unnamed, pods["prometheus"], pods[target], port)
    assert not may_connect(unnamed, pods["prometheus"], pods["train"], PROGRESS_PORT)


def test_snapshots_reach_buckets_only(render: Render, pods: dict[str, Endpoint]) -> None:
    without = policies_of(render, {"namespaces": ["team"]})
    assert not may_connect(without, pods["snapshot"], pods["internet"], 443)
    assert not may_connect(without, pods["snapshot"], pods["dns"], DNS)
    bucket = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}
    named = policies_of(
        render, {"namespaces": ["team"], "stores": LAKE, "networkPolicy": {"buckets": [bucket]}}
    )
    assert may_connect(named, pods["snapshot"], pods["internet"], 443)
    assert not may_connect(named, pods["snapshot"], pods["metadata"], 80)


def test_a_clusterwide_operator_has_its_policies_where_asked(render: Render) -> None:
    def where(values: Object) -> set[str]:
        return {item["metadata"]["namespace"] for item in policies_of(render, values)}

    assert where({}) == {"moe-system"}
    assert where({"networkPolicy": {"namespaces": ["team"]}}) == {"moe-system", "team"}
    both = policies_of(render, {"namespaces": ["team", "a"], "networkPolicy": {"namespaces": ["team", "b"]}})
    names = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in both]
    assert {namespace for namespace, _ in names} == {"moe-system", "team", "a", "b"}
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"networkPolicy": {"enabled": True}}, "networkPolicy.namespaces"),
        ({"networkPolicy": {"enabled": True}, "namespaces": ["team"]}, None),
        ({"networkPolicy": {"enabled": True, "namespaces": ["team"]}}, None),
        ({"networkPolicy": {"enabled": False}}, None),
        (
            {
                "networkPolicy": {"enabled": True, "namespaces": ["team"]},
                "metrics": {"podMonitor": {"enabled": True}},
            },
            "networkPolicy.monitoring",
        ),
    ],
)
def test_the_notes_warn_of_policies_that_protect_nothing(
    programs: Path, tmp_path: Path, values: Object, warned: str | None
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [programs / "helm", "install", "x", CHART, "--dry-run=client", "--values", file]
    notes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("NOTES:")[2]
    assert (notes.count("WARNING"), warned is None or warned in notes) == (0 if warned is None else 1, True)


def test_the_api_server_takes_the_policies(cluster: LocalCluster, policies: list[Object]) -> None:
    for policy in policies:
        here = {**policy, "metadata": {**policy["metadata"], "namespace": "team"}}
        answer = ApiServer(cluster).ask("POST", path_of(here) + "?dryRun=All&fieldValidation=Strict", here)
        assert answer.refused == ""
