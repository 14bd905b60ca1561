"""What can go wrong with the Jobs, the store and the children of an Expert, each beside a good neighbour."""

import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from small_trainer.behaviour import Behaviour
from stage import Json, Stage

#: A training that waits half way, four steps after a checkpoint, until all that should be struck have been.
LONG = {"maxSteps": 40, "checkpointEvery": 8}


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """Experts that train at once; three of them are struck as soon as they have something to lose."""
    stage = new_stage("faults")
    stage.write("text")
    stage.pool(budget={"trainingJobs": 8})
    train(stage, "nan", seed=Behaviour.NAN)
    train(stage, "disk", seed=Behaviour.DISK_FULL_ONCE, training={"maxSteps": 20, "checkpointEvery": 5})
    strikes = {"broken": kill_trainer, "jobless": delete_job, "phoenix": make_again}
    strikes |= {"evicted": evict_pod, "podless": delete_pod}
    for name in ("unbroken", *strikes):
        once = {"maxAttempts": 1} if name in ("evicted", "podless") else {}
        train(stage, name, seed=Behaviour.HELD, training=LONG | once)

    def strike() -> bool:
        for name in [item["metadata"]["name"] for item in stage.all("Expert") if _waits(item)]:
            if name in strikes:
                strikes.pop(name)(stage, name)
        return not strikes

    stage.wait("all trainings to be struck", strike)
    stage.release()
    yield stage
    stage.clear()


def _waits(expert: Json) -> bool:
    """Return whether an Expert's training waits half way."""
    found = expert.get("status", {}).get("training") or {}
    return bool(found.get("step") == LONG["maxSteps"] // 2)


def train(stage: Stage, name: str, **spec: object) -> None:
    """Apply an Expert that learns the common text."""
    stage.expert(name, folder="text", **spec)


def kill_trainer(stage: Stage, name: str) -> None:
    """SIGKILL the process that trains an Expert."""
    pool = (stage.get("ExpertPool", "pool") or {})["metadata"]["uid"]
    running = psutil.process_iter(["cmdline", "environ"])
    process = next(process for process in running if trains(process, f"{name}-1", pool))
    process.send_signal(signal.SIGKILL)


def trains(process: psutil.Process, revision: str, pool: str) -> bool:
    """Say whether a process is the training of a revision; other suites on this machine have their own."""
    arguments = process.info["cmdline"] or []
    if arguments[-1:] != ["train"] or not arguments[-2].endswith("moe-trainer"):
        return False
    environment = process.info["environ"] or {}  # of a process of somebody else it cannot be read
    config = environment.get("MOE_JOB_CONFIG", "")
    return f'"revision":"{revision}"' in config and pool in config


def delete_job(stage: Stage, name: str) -> None:
    """Delete the Job that trains an Expert."""
    stage.delete("Job", f"{name}-1-a1")


def evict_pod(stage: Stage, name: str) -> None:
    """Evict the pod that trains an Expert, as `kubectl drain` does."""
    stage.evict(f"{name}-1-a1")


def delete_pod(stage: Stage, name: str) -> None:
    """Delete the pod that trains an Expert."""
    for pod in stage.names("Pod", f"{name}-1-a1"):
        stage.delete("Pod", pod)


def make_again(stage: Stage, name: str) -> None:
    """Delete an Expert and make it again under its name."""
    stage.delete("Expert", name)
    train(stage, name, seed=Behaviour.HELD, training=LONG)


def digest(stage: Stage, revision: str) -> str:
    """Return the digest of what a revision made."""
    found: str = stage.status(revision, "ExpertRevision")["artefact"]["digest"]
    return found


def test_a_loss_that_is_not_finite_ends_the_revision_for_good(stage: Stage):
    stalled = stage.wait_for("nan", "Stalled", reason="LossNotFinite")
    assert "loss is nan" in stalled["message"]
    verdict = stage.status("nan-1", "ExpertRevision")["verdict"]
    assert (verdict["outcome"], verdict["final"]) == ("Failed", True)
    assert stage.names("Job", "nan-1-a") == ["nan-1-a1"]


def test_after_a_full_disk_the_next_attempt_goes_on_where_it_stopped(stage: Stage):
    stage.wait_ready("disk")
    assert stage.status("disk-1", "ExpertRevision")["artefact"]["resumedFrom"] == 10
    messages = [item["message"] for item in stage.all("Event") if item["involvedObject"]["name"] == "disk"]
    assert any("attempt 2" in message for message in messages)


def test_a_killed_trainer_resumes_exactly(stage: Stage):
    for name in ("unbroken", "broken"):
        stage.wait_ready(name)
    assert stage.status("broken-1", "ExpertRevision")["artefact"]["resumedFrom"] >= 5
    assert digest(stage, "broken-1") == digest(stage, "unbroken-1")
    assert stage.names("ExpertRevision", "broken-") == ["broken-1"]


def test_a_deleted_training_job_is_made_again_and_resumes(stage: Stage):
    stage.wait_ready("jobless")
    assert stage.status("jobless-1", "ExpertRevision")["artefact"]["resumedFrom"] >= 5
    assert stage.names("ExpertRevision", "jobless-") == ["jobless-1"]


@pytest.mark.parametrize("name", ["evicted", "podless"])
def test_a_pod_that_was_taken_away_uses_up_no_attempt(stage: Stage, name: str):
    stage.wait_ready(name)
    assert stage.status(f"{name}-1", "ExpertRevision")["artefact"]["resumedFrom"] >= 5
    first, *_ = (item for item in stage.all("Job") if item["metadata"]["name"] == f"{name}-1-a1")
    assert first["metadata"]["annotations"]["moe-operator.dev/taken"]
    (failed,) = (item for item in first["status"]["conditions"] if item["type"] == "Failed")
    assert ("condition DisruptionTarget" in failed["message"]) == (name == "evicted")


def test_an_expert_deleted_while_training_and_made_again_starts_anew(stage: Stage):
    phoenix = stage.wait_ready("phoenix")
    artefact = stage.status("phoenix-1", "ExpertRevision")["artefact"]
    assert phoenix["metadata"]["uid"] in artefact["path"]
    assert artefact["resumedFrom"] == 0
    jobs = [item for item in stage.all("Job") if item["metadata"]["name"].startswith("phoenix-")]
    owners = {owner["uid"] for item in jobs for owner in item["metadata"]["ownerReferences"]}
    assert owners == {phoenix["metadata"]["uid"]}


@pytest.fixture(scope="module")
def served(stage: Stage) -> str:
    """An Expert that serves; its name."""
    train(stage, "served")
    stage.wait_ready("served")
    return "served"


class TestServing:
    """What serves is put back, and never loads what is not what its digest says."""

    def test_a_deleted_deployment_is_made_again(self, stage: Stage, served: str):
        uid = (stage.get("Deployment", "served-1") or {})["metadata"]["uid"]
        stage.delete("Deployment", "served-1")

        def again() -> bool:
            live = stage.get("Deployment", "served-1")
            return (
                live is not None
                and live["metadata"]["uid"] != uid
                and live.get("status", {}).get("readyReplicas") == 1
            )

        stage.wait("a new Deployment that is ready", again)
        stage.wait_ready(served)

    def test_an_edited_deployment_is_put_back(self, stage: Stage, served: str):
        before = (stage.get("Deployment", "served-1") or {})["spec"]["template"]
        containers = [{**before["spec"]["containers"][0], "command": ["sleep", "1000"]}]
        stage.patch("Deployment", "served-1", {"spec": {"template": {"spec": {"containers": containers}}}})
        stage.wait(
            "the template to be put back",
            lambda: (stage.get("Deployment", "served-1") or {})["spec"]["template"] == before,
        )
        stage.wait_ready(served)

    def test_a_deleted_policy_and_gateway_are_made_again(self, stage: Stage, served: str):
        stage.delete("ConfigMap", "pool-routing")
        stage.delete("Deployment", "pool-gateway")
        stage.wait("the policy", lambda: stage.get("ConfigMap", "pool-routing"))
        stage.wait(
            "the gateway",
            lambda: (stage.get("Deployment", "pool-gateway") or {}).get("status", {}).get("readyReplicas"),
        )

    def test_altered_weights_are_never_loaded(self, stage: Stage, served: str):
        artefact = stage.status("served-1", "ExpertRevision")["artefact"]
        weights = stage.volume("pool-store") / artefact["path"] / "weights.npy"
        good = weights.read_bytes()
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        for pod in stage.all("Pod"):
            if (
                pod["metadata"]["labels"].get("moe-operator.dev/revision") == "served-1"
                and pod["status"]["phase"] == "Running"
            ):
                stage.delete("Pod", pod["metadata"]["name"])
        told = stage.wait(
            "corrupt weights to be told",
            lambda: "ArtefactCorrupt" in str(stage.status(served)) and stage.status(served),
        )
        assert told["serving"]["readyReplicas"] == 0
        weights.write_bytes(good)
        stage.wait_ready(served)
