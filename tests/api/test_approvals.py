"""Who may write, approve and undo proposals, with the chart's roles and its approval policy on a real API server."""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from tests.api.direct import JSON, MERGE, Answer, ApiServer, path_of
from typer.testing import CliRunner

from moe_client.cli.main import app
from moe_client.errors import ClientError
from moe_local.cluster import LocalCluster

Object = dict[str, Any]
Render = Callable[..., list[Object]]

KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
DIGEST = "sha256:" + "1" * 64
APPROVED = {"decision": "Approved", "evidence": DIGEST}
REJECTED = {"decision": "Rejected", "evidence": DIGEST}
OPERATOR = "system:serviceaccount:moe-system:decided"


def proposal(name: str, **spec: Any) -> Object:
    """A proposal to train an Expert again."""
    return {
        "apiVersion": "moe-operator.dev/v1alpha1",
        "kind": "ExpertProposal",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"pool": "pool", "expert": "law", "act": "Refresh", **spec},
    }


@pytest.fixture(scope="module")
def decided(cluster: LocalCluster, render: Render) -> Iterator[LocalCluster]:
    """The chart's roles and its policy under another name, and users who have one role each in namespace `team`."""
    objects = [item for item in render({"nameOverride": "decided"}) if item["kind"] in KINDS]
    objects += [bound(user, role) for user, role in ROLES.items()]
    text = "---\n".join(json.dumps(item) + "\n" for item in objects)
    cluster.kubectl("apply", "-f", "-", stdin=text)
    wait(lambda: all(ask(cluster, user, "GET").status == 200 for user in ROLES if user != "stranger"))
    # A new policy takes effect after a moment.
    wait(lambda: create(cluster, "editor", proposal("early", approval=APPROVED), "?dryRun=All").refused != "")
    yield cluster
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)


ROLES = {
    "viewer": "view",
    "editor": "edit",
    "approver": "decided-approve",
    "owner": "admin",
    "stranger": "system:discovery",
}


def bound(user: str, role: str) -> Object:
    """A binding in namespace `team`."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"decided-{user}", "namespace": "team"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def wait(done: Callable[[], bool]) -> None:
    """Wait until something has taken effect."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline, "the API server does not enforce it"
        time.sleep(0.1)


def ask(
    cluster: LocalCluster,
    user: str,
    method: str,
    *rest: str,
    body: Object | None = None,
    content_type: str = JSON,
    query: str = "",
) -> Answer:
    """Ask for proposals in the name of a user."""
    path = path_of(proposal("any"), *rest) + query
    return ApiServer(cluster, user).ask(method, path, body, content_type)


def create(cluster: LocalCluster, user: str, manifest: Object, query: str = "") -> Answer:
    """Create a proposal in the name of a user."""
    return ask(cluster, user, "POST", body=manifest, query=query)


def change(cluster: LocalCluster, user: str, name: str, **spec: Any) -> str:
    """Change the spec of a proposal in the name of a user; return why that was refused, if it was."""
    return ask(cluster, user, "PATCH", name, body={"spec": spec}, content_type=MERGE).refused


@pytest.fixture(scope="module")
def moectl(decided: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Run moectl with the token of an account that has one role; returns what it says, or the error that ends it."""
    folder = tmp_path_factory.mktemp("accounts")
    kubeconfig = yaml.safe_load(decided.kubeconfig.read_text())
    for role in ("edit", "decided-approve"):
        decided.kubectl("create", "serviceaccount", role, "-n", "team")
        binding = ("rolebinding", f"account-{role}", f"--clusterrole={role}", f"--serviceaccount=team:{role}")
        decided.kubectl("create", *binding, "-n", "team")
        token = decided.kubectl("create", "token", role, "-n", "team").stdout.strip()
        mine = kubeconfig | {"users": [item | {"user": {"token": token}} for item in kubeconfig["users"]]}
        (folder / role).write_text(json.dumps(mine))

    def run(role: str, *arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "-n", "team", "--kubeconfig", str(folder / role)])
        return str(done.exception) if isinstance(done.exception, ClientError) else done.output

    yield run
    for role in ("edit", "decided-approve"):
        decided.kubectl("delete", "-n", "team", f"serviceaccount/{role}", f"rolebinding/account-{role}")


def needs_the_verb(user: str) -> str:
    """What a user without the verb is told."""
    return (
        f"to approve, reject or undo a proposal, {user} needs the verb approve on expertproposals.moe-operator.dev in "
        "namespace team. ClusterRole decided-approve gives it, and so does admin"
    )


@pytest.fixture
def made(decided: LocalCluster) -> Iterator[str]:
    """A proposal that an editor made."""
    assert create(decided, "editor", proposal("made")).status == 201
    yield "made"
    ApiServer(decided).ask("DELETE", path_of(proposal("any"), "made"))


@pytest.mark.parametrize(
    "decision", [{"approval": APPROVED}, {"approval": REJECTED}, {"undo": True}], ids=str
)
def test_who_may_edit_may_not_decide(decided: LocalCluster, made: str, decision: Object) -> None:
    assert needs_the_verb("editor") in change(decided, "editor", made, **decision)
    refused = create(decided, "editor", proposal("another", **decision))
    assert (refused.status, needs_the_verb("editor") in refused.refused) == (403, True)


@pytest.mark.parametrize("user", ["approver", "owner"])
@pytest.mark.parametrize(
    "decision", [{"approval": APPROVED}, {"approval": REJECTED}, {"undo": True}], ids=str
)
def test_who_has_the_verb_may_decide(decided: LocalCluster, made: str, user: str, decision: Object) -> None:
    assert change(decided, user, made, **decision) == ""


def test_who_has_the_verb_alone_may_change_decisions_and_nothing_else(
    decided: LocalCluster, made: str
) -> None:
    assert "only approval and undo" in change(decided, "approver", made, comment="something else")
    assert "cannot create resource" in create(decided, "approver", proposal("another")).refused
    assert "cannot delete resource" in ask(decided, "approver", "DELETE", made).refused


def test_who_may_edit_may_not_change_or_take_back_a_decision_of_others(
    decided: LocalCluster, made: str
) -> None:
    assert change(decided, "approver", made, approval=APPROVED) == ""
    for other in (
        None,
        REJECTED,
        APPROVED | {"evidence": "sha256:" + "2" * 64},
        APPROVED | {"comment": "no"},
    ):
        assert needs_the_verb("editor") in change(decided, "editor", made, approval=other)


def test_a_decided_proposal_may_be_labelled_and_deleted_by_who_may_edit(
    decided: LocalCluster, made: str
) -> None:
    assert change(decided, "approver", made, approval=APPROVED, undo=True) == ""
    labels = {"metadata": {"labels": {"team": "law"}}}
    assert ask(decided, "editor", "PATCH", made, body=labels, content_type=MERGE).refused == ""
    assert ask(decided, "editor", "DELETE", made).refused == ""


def test_the_operator_writes_statuses_and_has_no_say(decided: LocalCluster, made: str) -> None:
    body = {"status": {"phase": "Open"}}
    assert ask(decided, OPERATOR, "PATCH", made, "status", body=body, content_type=MERGE).refused == ""
    assert "cannot patch resource" in change(decided, OPERATOR, made, approval=APPROVED)
    assert create(decided, OPERATOR, proposal("its-own"), "?dryRun=All").refused == ""
    approved = create(decided, OPERATOR, proposal("its-own", approval=APPROVED), "?dryRun=All")
    assert needs_the_verb(OPERATOR) in approved.refused


@pytest.mark.parametrize("user", ["viewer", "editor", "approver", "owner"])
def test_only_the_operator_writes_evidence_and_revisions(decided: LocalCluster, made: str, user: str) -> None:
    body = {"status": {"evidence": {"digest": DIGEST}}}
    refused = ask(decided, user, "PATCH", made, "status", body=body, content_type=MERGE).refused
    assert f'User "{user}" cannot patch resource "expertproposals/status"' in refused
    revision = proposal("law-1") | {"kind": "ExpertRevision"}
    refused = ApiServer(decided, user).ask("POST", path_of(revision), revision).refused
    assert f'User "{user}" cannot create resource "expertrevisions"' in refused
    # What a writer of specs sends along as status is left out.
    if user == "editor":
        sent = ask(decided, user, "PATCH", made, body=body, content_type=MERGE)
        assert sent.refused == "" and "status" not in sent.object


def with_evidence(cluster: LocalCluster, name: str, digest: str = DIGEST) -> None:
    """Give a proposal evidence, as the operator would."""
    evidence = {
        "digest": digest,
        "summary": "new text",
        "expertUID": "u",
        "current": "law-2",
        "parent": "law-1",
        "time": "t",
    }
    body = {"status": {"phase": "Open", "reason": "AwaitingApproval", "evidence": evidence}}
    assert ask(cluster, OPERATOR, "PATCH", name, "status", body=body, content_type=MERGE).refused == ""


def test_moectl_approves_on_the_evidence_that_it_shows(
    decided: LocalCluster, made: str, moectl: Callable[..., str]
) -> None:
    assert "the operator has not looked at it" in moectl("decided-approve", "approve", made)
    with_evidence(decided, made)
    assert made in moectl("decided-approve", "proposals")
    refused = moectl("edit", "approve", made)
    assert needs_the_verb("system:serviceaccount:team:edit") in refused
    assert (
        "to fix: ask for the verbs patch and approve on expertproposals.moe-operator.dev in namespace team"
        in refused
    )
    assert "rests on other evidence" in moectl(
        "decided-approve", "approve", made, "--evidence", DIGEST[:-1] + "2"
    )
    assert "Why: new text." in moectl("decided-approve", "approve", made, "--comment", "fine")
    spec = ask(decided, "viewer", "GET", made).object["spec"]
    assert spec["approval"] == APPROVED | {"comment": "fine"}
    assert "approved already" in moectl("edit", "approve", made)


def test_moectl_undoes_and_explains_itself(
    decided: LocalCluster, made: str, moectl: Callable[..., str]
) -> None:
    with_evidence(decided, made)
    assert "nothing to undo" in moectl("decided-approve", "undo", made)
    body = {"status": {"phase": "Done", "reason": "EffectUnknown"}}
    assert ask(decided, OPERATOR, "PATCH", made, "status", body=body, content_type=MERGE).refused == ""
    assert needs_the_verb("system:serviceaccount:team:edit") in moectl("edit", "undo", made)
    assert "is to be undone" in moectl("decided-approve", "undo", made)
    assert ask(decided, "viewer", "GET", made).object["spec"]["undo"] is True


def test_the_command_of_kubectl_that_moectl_shows_does_the_same(
    decided: LocalCluster, made: str, moectl: Callable[..., str]
) -> None:
    with_evidence(decided, made)
    shown = next(line for line in moectl("edit", "proposals", made).splitlines() if "kubectl patch" in line)
    decided.kubectl(*shlex.split(shown.partition("kubectl ")[2]))
    assert ask(decided, "viewer", "GET", made).object["spec"]["approval"] == APPROVED | {"comment": ""}


def test_viewers_read_and_strangers_do_not(decided: LocalCluster, made: str) -> None:
    assert ask(decided, "viewer", "GET", made).status == 200
    assert "cannot create resource" in create(decided, "viewer", proposal("another")).refused
    assert ask(decided, "stranger", "GET", made).status == 403


def test_the_policy_acts_in_the_namespaces_of_its_release_only(render: Render) -> None:
    def selectors(values: Object) -> list[Object | None]:
        bindings = [item for item in render(values) if item["kind"] == "ValidatingAdmissionPolicyBinding"]
        return [item["spec"].get("matchResources") for item in bindings]

    assert selectors({}) == [None]
    (limited,) = selectors({"namespaces": ["a", "b"]})
    assert limited == {
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}
            ]
        }
    }


def test_a_release_without_the_policy_says_who_gives_the_verb_only_where_its_roles_exist(
    render: Render,
) -> None:
    def policies(values: Object) -> list[str]:
        return [json.dumps(item) for item in render(values) if item["kind"] == "ValidatingAdmissionPolicy"]

    assert policies({"approvalPolicy": {"enabled": False}}) == []
    (alone,) = policies({"rbac": {"aggregate": False}})
    assert "moe-operator-approve" not in alone and "ask for a role that gives it" in alone
