"""Training on several nodes: two pods of two processes, and what happens when one process is lost."""

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from stage import Json, Stage

pytestmark = pytest.mark.real_training

#: Seconds for what four processes of the real trainer go through on two busy cores.
PATIENCE = 240.0


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """An Expert that trains in four processes; one of them is killed after its first checkpoint."""
    stage = new_stage("gang")
    stage.write("wide")
    stage.pool()
    resources = {"profile": "real", "nodes": 2, "devicesPerNode": 2, "expertParallelism": 2}
    training = {"maxSteps": 30, "learningRate": 0.003, "checkpointEvery": 5, "resources": resources}
    stage.expert("wide", training=training, serving={"profile": "real"})
    stage.wait("a checkpoint", lambda: stage.status("wide").get("training", {}).get("step", 0) >= 7, PATIENCE)
    pool = (stage.get("ExpertPool", "pool") or {})["metadata"]["uid"]
    trainers = [process for process in psutil.process_iter(["cmdline", "environ"]) if _trains(process, pool)]
    assert len(trainers) == 4
    victim = max(trainers, key=lambda process: process.info["environ"]["RANK"])
    os.kill(victim.pid, signal.SIGKILL)
    yield stage
    stage.clear()


def _trains(process: psutil.Process, pool: str) -> bool:
    """Say whether a process is one of a gang that trains for a pool; other suites on this machine have their own."""
    arguments, environment = process.info["cmdline"] or [], process.info["environ"] or {}
    ours = pool in environment.get("MOE_JOB_CONFIG", "")
    return arguments[-2:] == ["moe_trainer.main", "train"] and "RANK" in environment and ours


def jobs(stage: Stage) -> list[Json]:
    return [item for item in stage.all("Job") if item["metadata"]["name"].startswith("wide-1-a")]


def test_the_attempt_ends_with_any_process_and_the_next_goes_on(stage: Stage) -> None:
    stage.wait_ready("wide", PATIENCE)
    artefact = stage.status("wide-1", "ExpertRevision")["artefact"]
    assert artefact["resumedFrom"] >= 5 and artefact["steps"] == 30
    assert [item["metadata"]["name"] for item in jobs(stage)] == ["wide-1-a1", "wide-1-a2"], stage.describe()
    assert all(item["spec"]["parallelism"] == 2 for item in jobs(stage))
    assert stage.names("ExpertRevision", "wide-") == ["wide-1"]
