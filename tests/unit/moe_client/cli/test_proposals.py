"""`moectl proposals`, `approve`, `reject` and `undo` at an API server that holds a few proposals."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from moe_client.cli.main import app
from moe_client.errors import ClientError, Conflict, Forbidden, NotFound, Undecidable

NAME = "mathematics-rebase-1a2b3c4d"
Object = dict[str, Any]


class Server:
    """Takes the place of the connection. It keeps objects by name, and merges patches of the version that it has."""

    namespace = "default"

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        #: What happens between a read and a write, or what is refused.
        self.meanwhile: Any = lambda: None

    def call(
        self, method: str, path: str, *, body: Any = None, query: Any = None, headers: Any = None
    ) -> Object:
        name = path.partition("/expertproposals")[2].removeprefix("/")
        if not name:
            return {"items": copy.deepcopy(list(self.objects.values()))}
        if name not in self.objects:
            raise NotFound(f"{name} not found")
        if method == "PATCH":
            assert headers == {"Content-Type": "application/merge-patch+json"}
            self.meanwhile()
            found = self.objects[name]["metadata"]
            if {key: found[key] for key in ("uid", "resourceVersion")} != body["metadata"]:
                raise Conflict("the object has been modified")
            self.objects[name] = merged(self.objects[name], body)
        return copy.deepcopy(self.objects[name])


def merged(before: Any, change: Any) -> Any:
    """A merge patch, as RFC 7386 has it."""
    if not isinstance(change, Mapping):
        return change
    before = before if isinstance(before, Mapping) else {}
    both = {**before, **{key: merged(before.get(key), value) for key, value in change.items()}}
    return {key: value for key, value in both.items() if value is not None}


@pytest.fixture
def server(monkeypatch, proposal_manifest) -> Server:
    server = Server()
    server.objects[NAME] = proposal_manifest
    monkeypatch.setattr("moe_client.connection.Connection", lambda kubeconfig: server)
    return server


def moectl(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_list_has_what_is_not_over_with_effect_and_state(server):
    over = copy.deepcopy(server.objects[NAME])
    over["metadata"]["name"] = "mathematics-refresh-over"
    over["status"]["phase"] = "Done"
    elsewhere = copy.deepcopy(server.objects[NAME])
    elsewhere["metadata"]["name"] = "poetry-rebase-1"
    elsewhere["spec"]["pool"] = "second-pool"
    server.objects |= {item["metadata"]["name"]: item for item in (over, elsewhere)}
    header, *rows = moectl("proposals", "--pool", "first-pool").splitlines()
    assert header.split() == ["NAME", "ACT", "EXPERT", "EFFECT", "STATE", "REASON", "AGE"]
    (row,) = rows
    assert "promised -4.0 % [-8.0, -0.5]" in row and "Open" in row and "AwaitingApproval" in row
    names = {line.split()[0] for line in moectl("proposals", "--all").splitlines()[1:]}
    assert names == set(server.objects)


def test_an_empty_list_says_how_many_are_over(server):
    server.objects[NAME]["status"]["phase"] = "Done"
    assert "Nothing is proposed in namespace default. What is over (1) is listed with --all." in moectl(
        "proposals"
    )


def test_a_name_that_is_not_there_is_answered_with_those_that_are(server):
    for command in ("proposals", "approve", "reject", "undo"):
        with pytest.raises(
            NotFound, match=f"expertproposal 'other' is not in namespace 'default'; there are: {NAME}"
        ):
            moectl(command, "other")


@pytest.mark.parametrize(("command", "wanted"), [("approve", "Approved"), ("reject", "Rejected")])
def test_a_decision_quotes_the_evidence_that_was_shown(server, command, wanted):
    digest = server.objects[NAME]["status"]["evidence"]["digest"]
    said = moectl(command, NAME, "--comment", "as we said", "--evidence", digest)
    assert f"Evidence: {digest}" in said and "general-2 was promoted since" in said and "Promised" in said
    assert f"{wanted}. " in said
    approval = server.objects[NAME]["spec"]["approval"]
    assert approval == {"decision": wanted, "evidence": digest, "comment": "as we said"}


def test_a_decision_that_stands_is_not_written_again(server):
    moectl("approve", NAME)
    server.meanwhile = lambda: pytest.fail("it was written again")
    assert "approved already" in moectl("approve", NAME)


def test_other_evidence_than_was_seen_is_not_approved(server):
    with pytest.raises(Undecidable, match="rests on other evidence"):
        moectl("approve", NAME, "--evidence", "sha256:" + "b" * 64)
    assert "approval" not in server.objects[NAME]["spec"]


def test_a_proposal_that_changes_while_it_is_read_is_not_decided(server):
    def change() -> None:
        server.objects[NAME]["metadata"]["resourceVersion"] = "8"

    server.meanwhile = change
    with pytest.raises(Conflict, match=r"nothing was decided\. Read it again: moectl proposals"):
        moectl("approve", NAME)
    assert "approval" not in server.objects[NAME]["spec"]


def test_who_lacks_the_verb_hears_what_the_server_said_and_what_to_ask_for(server):
    def refuse() -> None:
        raise Forbidden("the API server refused (403): ann needs the verb approve")

    server.meanwhile = refuse
    server.objects[NAME]["status"]["phase"] = "Open"
    with pytest.raises(
        Forbidden, match=r"ann needs the verb approve\n  to fix: ask for the verbs patch and approve"
    ):
        moectl("approve", NAME)


def test_undoing_is_asked_for_once_and_only_of_what_was_started(server):
    with pytest.raises(ClientError, match="nothing to undo"):
        moectl("undo", NAME)
    server.objects[NAME]["status"]["phase"] = "Done"
    assert f"{NAME} is to be undone." in moectl("undo", NAME)
    assert server.objects[NAME]["spec"]["undo"] is True
    server.meanwhile = lambda: pytest.fail("it was written again")
    assert "is to be undone already" in moectl("undo", NAME)


def test_one_proposal_is_shown_whole(server):
    said = moectl("proposals", NAME)
    assert "In Git, this says the same:\n  kind: ExpertProposal" in said
    assert f"To approve it: moectl approve {NAME} -n default" in said


@pytest.mark.parametrize("command", ["approve", "reject", "undo"])
def test_the_help_has_the_same_with_kubectl(command):
    assert "kubectl patch eprop NAME --type=merge -p" in moectl(command, "--help")
