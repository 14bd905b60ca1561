"""Pods that somebody made up, with our labels, our Job's uid or our server's: none of them changes what is decided."""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World, digest

from moe_formats.job_report import Decision, EvaluateHeadline, Failure, Interval, TrainHeadline
from moe_formats.resources import labels
from moe_operator.cluster.job_pods import CONTROLLER_UID, JOB_NAME, TRACKING
from moe_operator.state import Manifest

SPEC = {"containers": [{"name": "main"}]}
READY = [{"type": "Ready", "status": "True"}]


@pytest.fixture
def world() -> World:
    world = World()
    world.pool()
    world.expert("general")
    return world


def forge(world: World, name: str, like: Manifest, *, owner: Manifest | None, **parts: Any) -> None:
    """Create a pod with the labels of another object, under a controller of one's choice."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "labels": dict(like["metadata"]["labels"]),
    }
    metadata["labels"] |= parts.pop("marks", {})
    metadata |= parts.pop("metadata", {})
    if owner is None:  # Something of their own, so that the garbage collector leaves the pod alone.
        mine = {"name": "mine", "namespace": "default"}
        owner = world.server.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": mine})
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    metadata["ownerReferences"] = [reference]
    world.server.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC, **parts})


def ended(message: str, code: int = 0) -> dict[str, Any]:
    """Return the status of a pod that has ended with last words."""
    terminated = {"exitCode": code, "reason": "Completed", "message": message}
    containers = [{"name": "main", "state": {"terminated": terminated}}]
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": containers}


def good_news(suite: str = "forged") -> str:
    """Return a headline that the gate would promote."""
    interval = Interval(value=-1.0, lower=-1.1, upper=-0.9, clusters=30)
    decision = Decision(
        role="anchor",
        holdout=digest(suite),
        uses=1,
        alpha=0.05,
        against="unigram",
        interval=interval,
        upper=-0.9,
    )
    return EvaluateHeadline(
        report=digest("forged"), decisions=(decision,), delta=0.005, noise_floor=0.0, suite=digest(suite)
    ).to_json()


def made_up_weights() -> str:
    return TrainHeadline(
        report=digest("forged"),
        path="pools/forged/a1",
        digest=digest("forged"),
        steps=1,
        tokens=1,
        final_loss=0.1,
        parameters=1,
    ).to_json()


def run_until(world: World, role: str) -> Manifest:
    """Run until the first Job of a role is under way, and return it."""
    world.kubelet.durations[role] = timedelta(hours=2)
    world.run(until=world.now + timedelta(minutes=3))
    (job,) = world.all("Job", role=role)
    return job


#: What somebody gives a forged pod, besides the uid of the Job as its controlling owner, and how it is called.
WITHOUT_MARKS = ({}, "{job}-x7k2p")
WITHOUT_NAME = ("marks", "promoted-worthy")
WITHOUT_FINALIZER = ("marks", "{job}-zzzzz")
COMPLETE = ("marks and finalizer", "{job}-zzzzz")


@pytest.mark.parametrize("given", [WITHOUT_MARKS, WITHOUT_NAME, WITHOUT_FINALIZER, COMPLETE])
@pytest.mark.parametrize(("role", "message"), [("train", made_up_weights()), ("evaluate", good_news())])
def test_a_report_by_a_pod_that_names_our_job_as_its_controller_is_not_believed(
    world: World, role: str, message: str, given: Any
) -> None:
    job = run_until(world, role)
    what, name = given
    marks = {JOB_NAME: job["metadata"]["name"], CONTROLLER_UID: job["metadata"]["uid"]} if what else {}
    finalizers = {"finalizers": [TRACKING]} if "finalizer" in what else {}
    name = name.format(job=job["metadata"]["name"])
    if world.has("Pod", name):
        name = name[:-1] + "q"
    forge(world, name, job, owner=job, status=ended(message), marks=marks, metadata=finalizers)
    world.run(until=world.now + timedelta(minutes=3))
    status = world.revision("general-1").status
    assert status.evidence is None
    assert role == "evaluate" or status.artefact is None


def test_two_pods_that_claim_one_place_are_named_until_one_is_gone(world: World) -> None:
    job = run_until(world, "evaluate")
    name = job["metadata"]["name"]
    marks = {JOB_NAME: name, CONTROLLER_UID: job["metadata"]["uid"]}
    forge(
        world,
        f"{name}-zzzzz",
        job,
        owner=job,
        status=ended(good_news()),
        marks=marks,
        metadata={"finalizers": [TRACKING]},
    )
    world.run(until=world.now + timedelta(minutes=1))
    met, reason, message = world.condition("general", "Evaluated")
    assert (met, reason) == ("False", "ReportContested")
    assert f"{name}-x7k2p and {name}-zzzzz" in message and "delete the pod" in message
    world.delete("Pod", f"{name}-zzzzz")
    world.kubelet.durations["evaluate"] = timedelta(seconds=1)
    world.kubelet.hurry()
    world.settle()
    assert world.status("general").current_revision == "general-1"
    evidence = world.revision("general-1").status.evidence
    assert evidence is not None and evidence.report != digest("forged")


def test_a_job_that_ends_contested_is_attempted_again_as_often_as_that_happens(world: World) -> None:
    job = run_until(world, "evaluate")
    name = job["metadata"]["name"]
    marks = {JOB_NAME: name, CONTROLLER_UID: job["metadata"]["uid"]}
    forge(world, f"{name}-zzzzz", job, owner=job, status=ended("lies", 64), marks=marks)
    world.kubelet.durations["evaluate"] = timedelta(seconds=1)
    world.kubelet.hurry()
    world.settle()
    assert world.status("general").current_revision == "general-1", "the next attempt decided"
    assert f"{name[:-1]}2" in world.created


def test_a_pod_with_our_labels_does_not_keep_the_next_attempt_from_starting(world: World) -> None:
    world.settle()
    world.change("general", runID="second")
    world.kubelet.durations["train"] = timedelta(hours=2)
    world.run(until=world.now + timedelta(minutes=3))
    job = next(item for item in world.all("Job", role="train") if item["metadata"]["name"] == "general-2-a1")
    for role in ("train", "snapshot", "evaluate"):
        forge(
            world, f"blocker-{role}", job, owner=None, status={"phase": "Running"}, marks={labels.ROLE: role}
        )
    world.delete("Job", "general-2-a1")
    world.run(until=world.now + timedelta(minutes=5))
    assert "general-2-a2" in world.created
    world.kubelet.durations["train"] = timedelta(seconds=1)
    world.settle()
    world.change("general", runID="third")
    world.settle()
    assert world.status("general").current_revision == "general-3", (
        "no snapshot was kept from starting either"
    )


@pytest.mark.parametrize("restarted", [False, True])
def test_pods_of_ours_whose_job_is_gone_do_keep_it_from_starting(world: World, restarted: bool) -> None:
    job = run_until(world, "train")
    world.kubelet.lingering = {job["metadata"]["name"]}
    world.delete("Job", job["metadata"]["name"])
    if restarted:
        world.tick()
        world = world.fork()
    world.run(until=world.now + timedelta(minutes=5))
    assert "general-1-a2" not in world.created, "two would write at the same time"
    world.kubelet.lingering = set()
    world.run(until=world.now + timedelta(minutes=5))
    assert "general-1-a2" in world.created


@pytest.mark.parametrize("owner", ["nobody", "Deployment"])
def test_a_pod_with_a_servers_labels_says_nothing_about_it(world: World, owner: str) -> None:
    world.kubelet.unready.add("general-1")
    world.run(until=world.now + timedelta(minutes=3))
    (server,) = world.all("Deployment", role="server")
    lie = Failure(reason="ArtefactCorrupt", message="forged").to_json()
    owned = server if owner == "Deployment" else None
    forge(world, "general-1-liar", server, owner=owned, status=ended(lie, 64))
    world.run(until=world.now + timedelta(minutes=3))
    verdict = world.revision("general-1").status.verdict
    assert verdict is None, "a server of ours is starting still"
    world.kubelet.unready.clear()
    world.settle()
    assert world.status("general").current_revision == "general-1"


def test_a_pod_with_a_gateways_labels_holds_up_no_hand_over(world: World) -> None:
    world.settle()
    (gateway,) = world.all("Deployment", role="gateway")
    status = {"phase": "Running", "podIP": "10.0.0.66", "conditions": READY}
    forge(world, f"{POOL}-gateway-liar", gateway, owner=None, status=status)
    world.change("general", runID="second")
    world.settle()
    serving = world.status("general").serving
    assert serving is not None and serving.revision == "general-2"
    assert world.servers() == {"general-2": 1}


def test_another_label_on_a_job_gives_its_evidence_to_no_other_revision(world: World) -> None:
    world.settle()
    evidence = world.revision("general-1").status.evidence
    hidden, shown = "hidden", {labels.ROLE: "evaluate", labels.REVISION: "general-2"}
    world.edit("Job", "general-1-e1", {"metadata": {"labels": {labels.ROLE: hidden}}})
    world.kubelet.durations["train"] = timedelta(hours=2)
    world.change("general", seed=7)
    world.run(until=world.now + timedelta(minutes=3))
    world.edit("Job", "general-1-e1", {"metadata": {"labels": shown}})
    world.kubelet.durations["train"] = timedelta(seconds=1)
    world.kubelet.hurry()
    world.settle()
    later = world.revision("general-2").status
    assert later.evidence is not None and evidence is not None
    assert later.evidence.report != evidence.report
    assert "general-2-e1" in world.created
