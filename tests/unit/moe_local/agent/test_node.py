from __future__ import annotations

from typing import Any, cast

import pytest

from moe_local.agent.api_client import APIClient
from moe_local.agent.config import AgentConfig
from moe_local.agent.machine import Isolation
from moe_local.agent.machine import not_isolated as no_isolation
from moe_local.agent.node import Node
from moe_local.agent.status import condition_value, timestamp

NOW = 1_800_000_000.0


def make_node(problem: str = "") -> Node:
    isolation = no_isolation(problem) if problem else Isolation("mapped")
    config = AgentConfig.model_validate(
        {
            "nodeName": "local",
            "kubeconfig": "/c/agent",
            "stateDir": "/c/state",
            "listenPort": 10250,
            "servingCertificate": "/c/s.pem",
            "servingKey": "/c/s.pem",
            "clientCa": "/c/ca.pem",
            "nodeLabels": {"profile": "cpu", "kubernetes.io/hostname": "other"},
        }
    )
    return Node(config, cast(APIClient, None), capacity={"cpu": "2"}, isolation=isolation)


def test_a_node_says_where_its_log_port_is_and_what_it_offers() -> None:
    manifest = make_node().manifest(NOW)
    status = manifest["status"]
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250
    assert status["capacity"] == status["allocatable"] == {"cpu": "2"}
    assert condition_value(status, "Ready") == "True"
    assert manifest["metadata"]["labels"]["profile"] == "cpu"
    assert manifest["metadata"]["labels"]["kubernetes.io/hostname"] == "local"


@pytest.mark.parametrize(("problem", "annotation"), [("", "mount-namespace"), ("unshare: refused", "none")])
def test_a_node_says_how_it_isolates_pods_and_why_not(problem: str, annotation: str) -> None:
    manifest = make_node(problem).manifest(NOW)
    assert manifest["metadata"]["annotations"]["moe-operator.dev/isolation"] == annotation
    said = next(c for c in manifest["status"]["conditions"] if c["type"] == "MountNamespaces")
    assert problem in said["message"]
    assert said["status"] == ("False" if problem else "True")


def test_a_condition_that_has_not_changed_keeps_its_time() -> None:
    before: dict[str, Any] = {
        "conditions": [
            {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "DiskPressure", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]
    }
    times = {c["type"]: c["lastTransitionTime"] for c in make_node().status(NOW, before)["conditions"]}
    assert times["Ready"] == timestamp(NOW)
    assert times["DiskPressure"] == "2020-01-01T00:00:00Z"
