"""What the operator observes of real requests, through a restart of it."""

import json
from http.client import HTTPConnection

import settled
from load import Load
from stage import Json, Stage

from moe_operator.builders.observations import packed_observations
from moe_operator.traffic import PoolTraffic, unpacked


def test_requests_are_counted_once_whatever_restarts(stage: Stage):
    stage.write("code")
    stage.pool()
    stage.expert("code")
    uid = stage.wait_ready("code")["metadata"]["uid"]
    with Load(stage, "code", clients=1) as load:
        stage.wait("answers", lambda: len(load.answers) >= 20)
    assert load.failures == []
    assert _counted(stage) == len(load.answers)
    # The gateway is older than the operator's first look at it, so these requests may count only where it looked before.
    first = _observed_after_restart(stage, uid)
    assert first <= len(load.answers)
    with Load(stage, "code", clients=1) as more:
        stage.wait("answers", lambda: len(more.answers) >= 20)
    assert _observed_after_restart(stage, uid) == first + len(more.answers)


def _counted(stage: Stage) -> int:
    """Return what the gateway has counted."""
    pods = [
        pod for pod in stage.all("Pod") if pod["metadata"]["labels"].get("moe-operator.dev/role") == "gateway"
    ]
    connection = HTTPConnection(pods[0]["status"]["podIP"], 9090, timeout=10)
    connection.request("GET", "/observations")
    counts = json.loads(connection.getresponse().read())["experts"]["code"]
    return int(counts["answered"])


def _observed_after_restart(stage: Stage, uid: str) -> int:
    """Stop the operator, and return the requests in what it wrote before it ended."""
    before = _written(stage)
    operator = settled.operator_process(stage.cluster)
    operator.terminate()
    operator.wait(30)

    def written() -> PoolTraffic | None:
        found = _written(stage)
        new = found is not None and found["metadata"]["resourceVersion"] != _version(before)
        return unpacked(packed_observations(found)) if found is not None and new else None

    traffic = stage.wait("what was observed", written)
    stage.wait("the next operator", lambda: len(settled.find_operator(stage.cluster)) == 1)
    stage.wait("the next operator to work", stage.cluster.operator_ready)
    return round(traffic.experts[uid].of_hours(0, 1e12).answered)


def _written(stage: Stage) -> Json | None:
    return stage.get("ConfigMap", "pool-observations")


def _version(manifest: Json | None) -> str:
    return str(manifest["metadata"]["resourceVersion"]) if manifest else ""
