"""A settled cluster, and a restart of the operator on it, see no writes by the operator but its Lease and observations."""

from collections.abc import Callable

import pytest
import settled
from stage import Json, Stage

SECONDS = 12.0


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Stage:
    """Experts of every kind of end: served, refused as invalid, waiting for data, without data."""
    stage = new_stage("settled")
    stage.write("text")
    stage.write("few", documents=12)
    stage.pool()
    for name in ("text", "few", "absent"):
        stage.expert(name)
    stage.expert("storeless", data={"sources": [{"store": "attic", "path": "*"}]})
    stage.wait_ready("text")
    stage.wait("a verdict on few", lambda: stage.status("few-1", "ExpertRevision").get("verdict"))
    stage.wait_for("absent", "Stalled")
    stage.wait("all Jobs to be done", lambda: all(_finished(job) for job in stage.all("Job")))
    stage.wait("quiet", lambda: _quiet(stage))
    return stage


def _quiet(stage: Stage) -> bool:
    """Say whether nothing was written for three seconds: old servers drain, gateways report."""
    return settled.while_settled(stage.cluster, 3)["otherWrites"] == 0


def _finished(job: Json) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)


def test_nothing_is_written_while_nothing_changes(stage: Stage):
    found = settled.while_settled(stage.cluster, SECONDS)
    assert found["others"] == {}
    assert found["leaseWrites"] > 0, "the log is the right one"
    assert found["observationWrites"] <= 1


def test_nothing_is_written_by_a_restart(stage: Stage):
    found = settled.across_restart(stage.cluster, SECONDS)
    assert found["others"] == {}
    stage.wait_ready("text")


def test_the_operator_stays_small(stage: Stage):
    process = settled.operator_process(stage.cluster)
    assert process.memory_info().rss < 150 * 2**20
