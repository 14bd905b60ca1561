from pathlib import Path

import pytest
import yaml

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiError, Listing
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.workloads import Workloads, why_it_waits

RECORDED = list(
    yaml.safe_load_all(Path(__file__).with_name("recorded_workloads.yaml").read_text(encoding="utf-8"))
)
NO_QUEUE, NO_QUOTA, INTRUDER, EVICTED, FINISHED = RECORDED


def with_conditions(workload, **changes):
    """Return a Workload with the statuses of some conditions changed."""
    conditions = workload["status"]["conditions"]
    changed = [{**item, "status": changes.get(item["type"], item["status"])} for item in conditions]
    return {**workload, "status": {**workload["status"], "conditions": changed}}


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (NO_QUEUE, "LocalQueue training doesn't exist"),
        (
            NO_QUOTA,
            "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor any, previously considered "
            "podsets requests (0) + current podset request (20m) > maximum capacity (0)",
        ),
        (
            INTRUDER,
            "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor any, 10m more needed. "
            "Pending the preemption of 1 workload(s)",
        ),
        (FINISHED, ""),
        (with_conditions(EVICTED, Evicted="False"), ""),
        ({"status": {}}, ""),
    ],
)
def test_why_a_job_waits_is_what_kueue_says(workload, said):
    assert why_it_waits(workload) == said


def test_an_eviction_is_told_first():
    said = why_it_waits(EVICTED)
    assert said.startswith("it was evicted (Preempted): Preempted to accommodate a workload (UID: efc9ffd7-")
    again = why_it_waits(with_conditions(EVICTED, QuotaReserved="False", Admitted="False"))
    assert again == f"{said}; Quota reserved in ClusterQueue lab", "then comes what Kueue says of the quota"


def test_a_workload_that_somebody_deactivated_says_how_to_go_on():
    assert "set spec.active of the Workload to true" in why_it_waits({**NO_QUOTA, "spec": {"active": False}})


@pytest.fixture
def asking(cache, api, make, expert, monkeypatch):
    """What is asked for Workloads in ns: a Job of ours with the recorded uid, which is in the queue and suspended."""
    uid = NO_QUOTA["metadata"]["ownerReferences"][0]["uid"]
    cache.put(expert("e", uid="E"))
    marks = {labels.QUEUE: "training"}
    owner = cache.get("Expert", "ns", "e")
    cache.put(make("Job", "waits", uid=uid, spec={"suspend": True}, owner=owner, marks=marks))
    cache.put(make("Job", "foreign", uid="F", spec={"suspend": True}, owner="Z", marks=marks))
    asked, served = [], {"kueue.x-k8s.io/v1beta1": [NO_QUOTA]}

    async def list_(resource, namespace="", *, keep=dict, **_):
        asked.append((resource.api_version, namespace))
        if resource.api_version not in served:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return Listing([keep(item) for item in served[resource.api_version]], 9)

    monkeypatch.setattr(api, "list", list_)
    answers, heard = Answers(), []
    return Workloads(api, cache, answers, heard.append), answers, heard, asked, served, uid


async def test_it_is_read_in_the_version_that_is_served_and_told_once_per_change(asking):
    workloads, answers, heard, asked, served, uid = asking
    for _ in range(2):
        await workloads.ask()
    assert asked[:2] == [("kueue.x-k8s.io/v1beta2", "ns"), ("kueue.x-k8s.io/v1beta1", "ns")]
    assert answers.waits.keys() == {uid} and "insufficient quota for cpu" in answers.waits[uid]
    assert [item["metadata"]["name"] for item in heard] == ["waits"]
    served["kueue.x-k8s.io/v1beta1"] = [with_conditions(NO_QUOTA)]
    await workloads.ask()
    assert len(heard) == 1


async def test_without_kueue_or_the_permission_nothing_is_said_but_once_in_the_log(asking, caplog):
    workloads, answers, heard, _, served, _ = asking
    served.clear()
    for _ in range(3):
        await workloads.ask()
    assert answers.waits == {} and heard == []
    assert caplog.text.count("cannot be read") == 1


async def test_nothing_is_asked_while_no_job_waits_in_a_queue(asking, cache, make, expert):
    workloads, answers, _, asked, _, uid = asking
    await workloads.ask()
    asked.clear()
    owner = cache.get("Expert", "ns", "e")
    marks = {labels.QUEUE: "training"}
    cache.put(make("Job", "waits", uid=uid, version=2, spec={"suspend": False}, owner=owner, marks=marks))
    await workloads.ask()
    assert asked == [] and answers.waits == {}
