"""Revisions that follow each other: handed over without a failed request, refused, rolled back."""

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest
from load import Load
from small_trainer.behaviour import Behaviour
from stage import Stage
from typer.testing import CliRunner

from moe_client.cli.main import app


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A base and an Expert of a domain that branches from it, both serving."""
    stage = new_stage("rollout")
    for folder in ("code", "prose"):
        stage.write(folder)
    both = [{"store": "corpora", "path": f"{folder}/*.txt"} for folder in ("code", "prose")]
    stage.pool()
    stage.expert("general", domain=None, data={"sources": both})
    stage.expert("code", base={"expert": "general"}, targets={"gain": 0.01})
    stage.wait_ready("code")
    yield stage
    stage.clear()


def test_an_expert_waits_for_its_base_and_gains_over_it(stage: Stage):
    status = stage.status("code")
    assert status["baseRevision"] == "general-1"
    assert status["scores"]["gain"]["lower"] > 0
    assert status["targets"] == "1/1"
    evidence = stage.status("code-1", "ExpertRevision")["evidence"]
    assert evidence["decisions"][0]["against"] == "base"


def test_a_new_revision_takes_over_under_load_without_a_failed_request(stage: Stage):
    with Load(stage, "code") as load:
        stage.wait("answers", lambda: len(load.answers) > 20)
        stage.patch("Expert", "code", {"spec": {"runID": "again"}})
        stage.wait("the new revision to answer", lambda: "code-2" in load.revisions())
        stage.wait("the old server to go", lambda: stage.get("Deployment", "code-1") is None)
    assert load.failures == []
    assert load.revisions() == ["code-1", "code-2"]
    assert stage.wait_ready("code")["status"]["serving"]["revision"] == "code-2"


def test_a_revision_that_is_worse_is_refused_and_the_last_good_one_serves(stage: Stage):
    stage.patch("Expert", "code", {"spec": {"seed": int(Behaviour.BACKWARDS)}})
    stage.wait("a verdict", lambda: stage.status("code-3", "ExpertRevision").get("verdict"))
    verdict = stage.status("code-3", "ExpertRevision")["verdict"]
    assert (verdict["outcome"], verdict["reason"], verdict["final"]) == ("Refused", "PromotionRefused", True)
    assert "upper bound" in verdict["message"]
    # The revision's status is written before the Expert's.
    stage.wait_for("code", "Promoted", "False", reason="PromotionRefused")
    assert stage.status("code")["serving"]["revision"] == "code-2"
    assert stage.get("Deployment", "code-3") is None


def test_taking_the_change_back_asks_for_the_old_revision_and_makes_none(stage: Stage):
    stage.patch("Expert", "code", {"spec": {"seed": 0}})
    stage.wait_ready("code")
    assert stage.names("ExpertRevision", "code-") == ["code-1", "code-2", "code-3"]


def test_a_rollback_moves_a_pointer_and_makes_nothing(stage: Stage):
    stage.patch("Expert", "code", {"spec": {"revision": "code-1"}})
    stage.wait("code-1 to serve", lambda: stage.status("code").get("serving", {}).get("revision") == "code-1")
    assert stage.names("ExpertRevision", "code-") == ["code-1", "code-2", "code-3"]
    stage.patch("Expert", "code", {"spec": {"revision": None}})
    stage.wait("code-2 to serve", lambda: stage.status("code").get("serving", {}).get("revision") == "code-2")


def test_a_person_proposes_to_go_back_approves_it_with_moectl_and_undoes_it(stage: Stage):
    spec = {
        "pool": "pool",
        "expert": "code",
        "act": "RollBack",
        "revision": "code-1",
        "comment": "it was better",
    }
    stage.apply("ExpertProposal", "back", spec)
    stage.wait("evidence", lambda: stage.status("back", "ExpertProposal").get("evidence"))
    assert stage.status("back", "ExpertProposal")["reason"] == "AwaitingApproval"
    assert "moectl approve back" in moectl(stage, "why", "code")
    assert stage.status("code")["serving"]["revision"] == "code-2", "nothing is done before it is approved"
    with Load(stage, "code") as load:
        stage.wait("answers", lambda: len(load.answers) > 20)
        assert "It rests on: code-2 was the current revision, and code-1 would be after it." in moectl(
            stage, "approve", "back", "--comment", "as discussed"
        )
        stage.wait("code-1 to answer", lambda: "code-1" in load.revisions())
        stage.wait("the old server to go", lambda: stage.get("Deployment", "code-2") is None)
        proposed(stage, "Done")
        assert stage.status("code")["currentRevision"] == "code-1"
        assert stage.status("code-2", "ExpertRevision")["verdict"]["outcome"] == "Withdrawn"
        assert "is to be undone" in moectl(stage, "undo", "back")
        stage.wait("code-2 to answer again", lambda: load.answers[-1][1] == "code-2")
    assert load.failures == []
    proposed(stage, "Undone")
    assert stage.status("code-2", "ExpertRevision")["verdict"]["outcome"] == "Promoted"
    assert stage.wait_ready("code")["status"]["serving"]["revision"] == "code-2"
    assert stage.names("ExpertRevision", "code-") == ["code-1", "code-2", "code-3"], "nothing was trained"


def proposed(stage: Stage, phase: str) -> None:
    """Wait until the proposal has reached a phase."""
    stage.wait(phase, lambda: stage.status("back", "ExpertProposal").get("phase") == phase)


def moectl(stage: Stage, *arguments: str) -> str:
    """Run moectl as the administrator."""
    options = ("-n", stage.namespace, "--kubeconfig", str(stage.cluster.kubeconfig))
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_new_data_that_is_junk_is_refused_by_the_anchor(stage: Stage):
    for number in range(400):
        (stage.data / "code" / f"junk-{number}.txt").write_text(f"{number} " + "0 1 " * 300)
    stage.patch("Expert", "code", {"spec": {"runID": "junk"}})
    stage.wait("a verdict", lambda: stage.status("code-4", "ExpertRevision").get("verdict"))
    verdict = stage.status("code-4", "ExpertRevision")["verdict"]
    assert verdict["outcome"] in ("Refused", "Waiting"), verdict
    assert stage.status("code")["serving"]["revision"] == "code-2"


def test_scaling_servers_is_seen_by_the_scale_subresource(stage: Stage):
    stage.cluster.kubectl("scale", "-n", stage.namespace, "expert/code", "--replicas=2")
    stage.wait("two servers", lambda: stage.status("code").get("replicas") == 2)
    stage.wait_ready("code")
    assert stage.get("Deployment", "code-2")["spec"]["replicas"] == 2


def test_an_expert_that_is_scaled_to_zero_exists_and_comes_back(stage: Stage):
    seen = []

    def answers(expected: int) -> bool:
        seen.append(ask(stage, "code")[0])
        return seen[-1] == expected

    stage.patch("Expert", "code", {"spec": {"serving": {"replicas": 0}}})
    stage.wait("status 503", lambda: answers(503))
    stage.wait("an answer that says so", lambda: ask(stage, "code")[1] == "expert_not_ready")
    stage.patch("Expert", "code", {"spec": {"serving": {"replicas": 1}}})
    stage.wait("an answer", lambda: answers(200))
    assert set(seen) <= {200, 503}


def test_keys_of_a_secret_hold_and_are_rotated_without_a_restart(stage: Stage):
    name, namespace = "team-gateway-keys", stage.namespace
    stage.cluster.kubectl("create", "secret", "generic", name, "-n", namespace, "--from-literal=keys=old")
    stage.patch("ExpertPool", "pool", {"spec": {"gateway": {"keysFrom": {"secret": name}}}})
    stage.wait("keys to be asked for", lambda: ask(stage, "code")[0] == 401)
    stage.wait("the rollout", lambda: len(gateways(stage)) == 1)
    (before,) = gateways(stage)
    assert ask(stage, "code", "old")[0] == 200
    change = '{"stringData": {"keys": "new"}}'
    stage.cluster.kubectl("patch", "secret", name, "-n", namespace, "--type=merge", "-p", change)
    stage.wait("the new key to hold", lambda: ask(stage, "code", "new")[0] == 200)
    assert ask(stage, "code", "old")[0] == 401
    (after,) = gateways(stage)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    stage.patch("ExpertPool", "pool", {"spec": {"gateway": None}})
    stage.wait("no keys to be asked for", lambda: ask(stage, "code")[0] == 200)


def gateways(stage: Stage) -> list[dict[str, Any]]:
    """Return the gateway's pods, without those that are going."""
    return [
        pod
        for pod in stage.all("Pod")
        if pod["metadata"]["labels"].get("moe-operator.dev/role") == "gateway"
        and "deletionTimestamp" not in pod["metadata"]
    ]


def ask(stage: Stage, model: str, key: str = "") -> tuple[int, str | None]:
    """Return the status and the error's code of a request to the newest gateway; 0 if it does not answer."""
    newest = max(gateways(stage), key=lambda pod: pod["metadata"]["creationTimestamp"])
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection = HTTPConnection(newest["status"].get("podIP", "127.0.0.1"), 8080, timeout=90)
    try:
        body = json.dumps({"model": model, "prompt": "hello", "max_tokens": 1})
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        return response.status, answer.get("error", {}).get("code")
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()
