"""What a stolen token of the operator can do while the chart's admission policy is on, on a real API server.

RBAC alone would allow every request here. That the operator itself still can do all that it has to is shown by the
tests in tests/cluster, which run with the policy.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.api.direct import APPLY, JSON, MERGE, ApiServer, path_of

from moe_local.cluster import LocalCluster

GOLDEN = Path(__file__).parents[1] / "unit" / "moe_operator" / "builders" / "golden"
ACCOUNT = "system:serviceaccount:moe-system:guarded"
KINDS = {
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
}
LAKE = {"lake": {"s3": {"bucket": "text", "secret": "lake-reader"}}}

#: Objects of somebody else, with their names.
THEIRS = {"Deployment": "a", "Service": "s", "ConfigMap": "c", "ExpertProposal": "p"}

Object = dict[str, Any]
Render = Callable[..., list[Object]]


def made(kind: str, start: str = "") -> Object:
    """A manifest as a builder makes it, in namespace `team` and without an owner, which does not exist there."""
    manifests = yaml.load_all((GOLDEN / "cpu.yaml").read_text(), yaml.CSafeLoader)
    found = next(
        item
        for item in manifests
        if item and item["kind"] == kind and item["metadata"]["name"].startswith(start)
    )
    manifest = copy.deepcopy(found)
    manifest["metadata"]["namespace"] = "team"
    manifest["metadata"].pop("ownerReferences", None)
    return manifest


@pytest.fixture(scope="module")
def guarded(cluster: LocalCluster, render: Render) -> Iterator[LocalCluster]:
    """The operator's account under another name, with its roles and the policy; and objects of somebody else."""
    values = {"nameOverride": "guarded", "admissionPolicy": {"enabled": True}, "stores": LAKE}
    values["rbac"] = {"aggregate": False}
    objects = [item for item in render(values) if item["kind"] in KINDS]
    theirs = [foreign(kind, name) for kind, name in THEIRS.items()]
    text = "---\n".join(json.dumps(item) + "\n" for item in [*objects, *theirs])
    cluster.kubectl("apply", "-f", "-", stdin=text)
    deadline = time.monotonic() + 120
    while create(cluster, foreign("ConfigMap", "x")) == "":  # A new policy takes effect after a moment.
        assert time.monotonic() < deadline, "the API server does not enforce the policy"
        time.sleep(0.2)
    yield cluster
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)


def foreign(kind: str, name: str) -> Object:
    """An object of somebody else in namespace `team`."""
    metadata = {"name": f"theirs-{name}", "namespace": "team"}
    labels = {"app": "theirs"}
    container = {"name": "main", "image": "theirs"}
    bodies: dict[str, Object] = {
        "Deployment": {
            "apiVersion": "apps/v1",
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        "Service": {"apiVersion": "v1", "spec": {"ports": [{"port": 80}], "selector": labels}},
        "ConfigMap": {"apiVersion": "v1", "data": {"key": "value"}},
        "ExpertProposal": {
            "apiVersion": "moe-operator.dev/v1alpha1",
            "spec": {"pool": "pool", "expert": "law", "act": "Rebase"},
        },
    }
    return {"kind": kind, "metadata": metadata, **bodies[kind]}


def as_operator(
    cluster: LocalCluster, method: str, path: str, body: Object | None = None, kind: str = JSON
) -> str:
    """Ask with the operator's rights, without lasting effect; return what was refused, empty if nothing was."""
    dry = f"{path}{'&' if '?' in path else '?'}dryRun=All"
    return ApiServer(cluster, ACCOUNT).ask(method, dry, body, kind).refused


def create(cluster: LocalCluster, manifest: Object) -> str:
    """Create an object as the operator; return why that was refused, if it was."""
    return as_operator(cluster, "POST", path_of(manifest), manifest)


def patch(cluster: LocalCluster, manifest: Object, change: Object, *subresource: str) -> str:
    """Patch an object as the operator; return why that was refused, if it was."""
    path = path_of(manifest, manifest["metadata"]["name"], *subresource)
    return as_operator(cluster, "PATCH", path, change, MERGE)


def delete(cluster: LocalCluster, manifest: Object) -> str:
    """Delete an object as the operator; return why that was refused, if it was."""
    return as_operator(cluster, "DELETE", path_of(manifest, manifest["metadata"]["name"]))


MINE = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "moe-operator"}}}


@pytest.mark.parametrize(
    ("kind", "name", "change", "subresource"),
    [
        ("Deployment", "a", {"spec": {"template": {"metadata": {"labels": {"hacked": "yes"}}}}}, ()),
        ("Deployment", "a", MINE, ()),  # Our label on somebody else's object makes it no object of ours.
        ("Deployment", "a", {"spec": {"replicas": 0}}, ("scale",)),
        ("Service", "s", {"spec": {"selector": {"app": "mine"}}}, ()),
        ("ConfigMap", "c", {"data": {"key": "hacked"}}, ()),
        ("ConfigMap", "c", MINE, ()),
    ],
)
def test_objects_of_others_cannot_be_changed(
    guarded: LocalCluster, kind: str, name: str, change: Object, subresource: tuple[str, ...]
) -> None:
    refused = patch(guarded, foreign(kind, name), change, *subresource)
    assert "ValidatingAdmissionPolicy 'guarded.moe-system'" in refused, refused or "it was allowed"
    assert "the operator may only" in refused


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ExpertProposal"])
def test_objects_of_others_cannot_be_deleted(guarded: LocalCluster, kind: str) -> None:
    assert "the operator may only change and delete" in delete(guarded, foreign(kind, THEIRS[kind]))


def test_the_operator_proposes_only_under_its_own_label_and_approves_nothing(guarded: LocalCluster) -> None:
    proposal = foreign("ExpertProposal", "new")
    assert "the operator may only create objects with the label" in create(guarded, proposal)
    proposal["metadata"] |= MINE["metadata"]
    assert create(guarded, proposal) == ""
    approval = {"spec": {"approval": {"decision": "Approved", "evidence": "sha256:" + 64 * "0"}}}
    assert "forbidden" in patch(guarded, foreign("ExpertProposal", "p"), approval)


def pod(manifest: Object) -> Object:
    """The pod in a manifest."""
    spec: Object = manifest["spec"]["template"]["spec"]
    return spec


def volume(**source: Any) -> Callable[[Object], None]:
    """Mount something into the pod."""
    return lambda spec: spec["volumes"].append({"name": "stolen", **source})


def variable(**source: Any) -> Callable[[Object], None]:
    """Give a variable to the pod's container."""
    return lambda spec: spec["containers"][0]["env"].append({"name": "STOLEN", "valueFrom": source})


def context(**fields: Any) -> Callable[[Object], None]:
    """Change the security context of the pod's container."""
    return lambda spec: spec["containers"][0]["securityContext"].update(fields)


TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
ATTACKS: list[tuple[str, Callable[[Object], Any], str]] = [
    ("token", lambda spec: spec.update(automountServiceAccountToken=True), "ServiceAccount"),
    ("no word on the token", lambda spec: spec.pop("automountServiceAccountToken"), "ServiceAccount"),
    ("another account", lambda spec: spec.update(serviceAccountName="admin"), "ServiceAccount"),
    ("projected token", volume(projected=TOKEN), "mount only"),
    ("secret", volume(secret={"secretName": "theirs"}), "mount only"),
    (
        "a secret named almost like keys",
        volume(secret={"secretName": "team-gateway-keys-2"}),
        "mount only",
    ),
    ("the node's disk", volume(hostPath={"path": "/"}), "mount only"),
    ("variable of a secret", variable(secretKeyRef={"name": "theirs", "key": "k"}), "variables from Secrets"),
    (
        "variables of a secret",
        lambda spec: spec["containers"][0].update(envFrom=[{"secretRef": {"name": "theirs"}}]),
        "variables from Secrets",
    ),
    (
        "an init container",
        lambda spec: spec.update(
            initContainers=[
                {
                    "name": "first",
                    "image": "moe-operator/trainer",
                    "securityContext": spec["containers"][0]["securityContext"],
                    "envFrom": [{"secretRef": {"name": "theirs"}}],
                }
            ]
        ),
        "variables from Secrets",
    ),
    ("more privileges", context(allowPrivilegeEscalation=True), "without root"),
    ("capabilities", context(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "without root"),
    ("root", lambda spec: spec["securityContext"].update(runAsNonRoot=False), "without root"),
    ("root in a container", context(runAsNonRoot=False), "without root"),
    ("the node's network", lambda spec: spec.update(hostNetwork=True), "without root"),
    (
        "a port of the node",
        lambda spec: spec["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 80}]),
        "without root",
    ),
]


@pytest.mark.parametrize("kind", ["Job", "Deployment"])
@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(change, message, id=name) for name, change, message in ATTACKS]
)
def test_a_pod_with_powers_or_credentials_is_refused(
    guarded: LocalCluster, kind: str, change: Callable[[Object], Any], message: str
) -> None:
    manifest = made(kind)
    change(pod(manifest))
    refused = create(guarded, manifest)
    assert "guarded.moe-system" in refused, refused or "it was allowed"
    assert message in refused


def test_an_object_without_our_label_is_refused(guarded: LocalCluster) -> None:
    for kind in ("Job", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim"):
        manifest = made(kind)
        del manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"]
        assert "may only create objects with the label" in create(guarded, manifest), kind


@pytest.mark.parametrize(
    "change", [{"clusterIP": None}, {"externalIPs": ["203.0.113.7"]}, {"type": "NodePort", "clusterIP": None}]
)
def test_only_headless_services_are_made(guarded: LocalCluster, change: Object) -> None:
    manifest = made("Service")
    manifest["spec"] = {key: value for key, value in {**manifest["spec"], **change}.items() if value}
    assert "headless Services" in create(guarded, manifest)


@pytest.mark.parametrize(
    "change", [{"externalIPs": ["203.0.113.7"]}, {"type": "NodePort"}, {"type": "LoadBalancer"}]
)
def test_a_gateways_service_cannot_be_reached_from_outside_either(
    guarded: LocalCluster, change: Object
) -> None:
    services = [
        item
        for item in yaml.load_all((GOLDEN / "cpu.yaml").read_text(), yaml.CSafeLoader)
        if item["kind"] == "Service"
    ]
    (manifest,) = (
        item for item in services if item["metadata"]["labels"]["moe-operator.dev/role"] == "gateway"
    )
    manifest["metadata"] = {**manifest["metadata"], "namespace": "team"}
    manifest["spec"] |= change
    assert "headless Services" in create(guarded, manifest)


def test_the_keys_of_gateways_may_be_mounted_in_deployments_only(guarded: LocalCluster) -> None:
    for name in ("gateway-keys", "team-gateway-keys"):
        gateway, job = made("Deployment", "first-pool-gateway"), made("Job")
        for manifest in (gateway, job):
            volume(secret={"secretName": name, "defaultMode": 0o440})(pod(manifest))
        assert create(guarded, gateway) == ""
        assert "mount only" in create(guarded, job)


def test_what_the_builders_make_is_allowed_and_may_be_changed_and_deleted(guarded: LocalCluster) -> None:
    for manifest in yaml.load_all((GOLDEN / "cpu.yaml").read_text(), yaml.CSafeLoader):
        if manifest and manifest["kind"] != "ExpertRevision":
            manifest["metadata"]["namespace"] = "team"
            assert create(guarded, manifest) == "", manifest["metadata"]["name"]
    server, job = made("Deployment", "mathematics-1"), made("Job", "mathematics-1-a1")
    server["spec"]["replicas"] = 0
    for manifest in (server, job):
        guarded.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    applied = path_of(server, "mathematics-1") + "?fieldManager=moe-operator&force=true"
    changed = copy.deepcopy(server)
    pod(changed)["containers"][0]["image"] = "moe-operator/trainer:another"
    assert as_operator(guarded, "PATCH", applied, changed, APPLY) == ""
    assert patch(guarded, server, {"spec": {"replicas": 1}}, "scale") == ""
    assert patch(guarded, job, {"spec": {"suspend": False}}) == ""
    for manifest in (server, job):
        assert delete(guarded, manifest) == ""
        guarded.kubectl("delete", "-n", "team", f"{manifest['kind']}/{manifest['metadata']['name']}")


def test_a_child_whose_label_was_removed_may_be_put_right(guarded: LocalCluster) -> None:
    owner = {"apiVersion": "moe-operator.dev/v1alpha1", "kind": "ExpertPool"}
    pool = {**owner, "metadata": {"name": "owner", "namespace": "team"}, "spec": {"storage": {"size": "1Gi"}}}
    made_pool = guarded.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(pool)).stdout
    uid = json.loads(made_pool)["metadata"]["uid"]
    policy = made("ConfigMap")
    reference = {**owner, "name": "owner", "uid": uid, "controller": True}
    policy["metadata"] |= {"labels": {}, "ownerReferences": [reference]}
    guarded.kubectl("create", "-f", "-", stdin=json.dumps(policy))
    try:
        assert patch(guarded, policy, MINE) == ""
    finally:
        guarded.kubectl("delete", "expertpool/owner", "-n", "team")


def test_people_are_not_limited_by_it(guarded: LocalCluster) -> None:
    answer = guarded.kubectl(
        "patch", "deployment/theirs-a", "-n", "team", "--type=merge", "--dry-run=server",
        "-p", json.dumps({"spec": {"replicas": 1}}), check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
