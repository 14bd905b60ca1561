"""Parts of the machinery killed while Experts train: nothing is lost and nothing is done twice."""

import itertools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mortal_operator import live, writes_in
from settled import find_operator
from small_trainer.behaviour import Behaviour
from stage import PATIENCE, Stage

from moe_formats.resources import labels
from moe_local.cluster import LocalCluster

#: Every life of the operator is a process of its own, forked from one that has imported it and done nothing else:
#: importing takes longer than most lives.
NEWBORN = multiprocessing.get_context("forkserver")
NEWBORN.set_forkserver_preload(["moe_operator.main"])


def assert_nothing_twice(stage: Stage, name: str) -> None:
    """One revision, one Job for each piece of work, and all of them the Expert's own."""
    assert stage.names("ExpertRevision", f"{name}-") == [f"{name}-1"]
    revision = stage.status(f"{name}-1", "ExpertRevision")
    assert revision["verdict"]["outcome"] == "Promoted"
    jobs = stage.names("Job", f"{name}-")
    assert len([job for job in jobs if job.startswith(f"{name}-snapshot-")]) == 1
    assert [job for job in jobs if job.startswith(f"{name}-1-e")] == [f"{name}-1-e1"]


def test_every_part_is_killed_while_an_expert_trains(stage: Stage, start: Callable[[], LocalCluster]):
    stage.write("text")
    stage.pool()
    stage.expert("text", seed=Behaviour.HELD, training={"maxSteps": 40, "checkpointEvery": 8})
    stage.wait("it to be half way", lambda: stage.status("text").get("training", {}).get("step") == 20)
    for part in ("node-agent", "kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler"):
        stage.cluster.kill(part)
        start()
        assert stage.names("Job", "text-1-a") == ["text-1-a1"], f"{part} was killed"
    (process,) = find_operator(stage.cluster)
    process.send_signal(signal.SIGKILL)
    stage.release()
    stage.wait_ready("text")
    assert_nothing_twice(stage, "text")
    assert stage.names("Job", "text-1-a") == ["text-1-a1"]
    assert stage.status("text-1", "ExpertRevision")["artefact"]["resumedFrom"] == 0, "it trained all the time"


def ours(stage: Stage) -> list[str]:
    """Return the names of all objects in a namespace that the operator created."""
    kinds = ("ExpertRevision", "Job", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim")
    return [
        item["metadata"]["name"]
        for kind in kinds
        for item in stage.all(kind)
        if (item["metadata"].get("labels") or {}).get(labels.MANAGED_BY) == labels.FIELD_MANAGER
    ]


class TestMortalOperator:
    """The operator dies after every few writes of an Expert's whole life, from snapshot to gateway."""

    @pytest.fixture
    def alone(self, cluster: LocalCluster) -> Iterator[None]:
        """Stop the installed operator, so that only the mortal one acts."""
        scale = ("scale", "-n", "moe-system", "deploy/moe-operator")
        cluster.kubectl(*scale, "--replicas=0")
        deadline = time.monotonic() + PATIENCE
        while find_operator(cluster):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
        cluster.kubectl(*scale, "--replicas=1")
        cluster.kubectl("rollout", "status", "-n", "moe-system", "deploy/moe-operator", "--timeout=180s")

    def test_it_dies_after_every_few_writes(
        self, stage: Stage, alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # All lives inherit these; the client of Kubernetes reads them when it is imported.
        monkeypatch.setenv("KUBECONFIG", str(stage.cluster.kubeconfig))
        monkeypatch.setenv("POD_NAME", "mortal")
        monkeypatch.setenv("POD_NAMESPACE", stage.namespace)
        config = tmp_path / "config.yaml"
        text = stage.cluster.kubectl(
            "get", "cm", "-n", "moe-system", "moe-operator", "-o", "jsonpath={.data.config\\.yaml}"
        )
        config.write_text(text.stdout)
        stage.write("text")
        stage.pool()
        stage.expert("text", training={"maxSteps": 10})
        writes: list[str] = []
        for life in itertools.cycle((1, 3, 2)):
            writes += self._live(stage, config, life, tmp_path / "log")
            if stage.condition("text", "Ready").get("status") == "True":
                break
            assert len(writes) < 100, writes
        assert len(writes) >= 12, writes
        assert_nothing_twice(stage, "text")
        assert stage.names("Job", "text-1-a") == ["text-1-a1"]
        creations = [line for line in writes if line.startswith("POST") and "/events" not in line]
        assert len(creations) == len(ours(stage)), "everything is created once"

    def _live(self, stage: Stage, config: Path, writes: int, log: Path) -> list[str]:
        """Run the operator until its writes are used up, or the Expert is ready; return its writes."""
        arguments = ["--config", str(config), "--namespace", stage.namespace]
        arguments += ["--metrics-port", "0", "--health-port", "0"]
        process = NEWBORN.Process(target=live, args=(writes, arguments, log))
        process.start()
        try:
            stage.wait(
                "the operator's death",
                lambda: not process.is_alive() or stage.condition("text", "Ready").get("status") == "True",
            )
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        return writes_in(log)
