"""Which addresses pods hold: a pod that has ended gives its own back, however long its object stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_local.agent import agent as module
from moe_local.agent.agent import Agent
from moe_local.agent.config import AgentConfig
from moe_local.agent.pod import Pod


class Worker:
    """A worker that keeps no process: its pod is at rest as soon as the pod has ended."""

    def __init__(self, pod: Pod, address: str, node: Any, refusal: Any) -> None:
        self.pod, self.refusal = pod, refusal
        self.state = SimpleNamespace(address=address)

    @property
    def holds_resources(self) -> bool:
        return not self.pod.ended

    def update(self, pod: Pod) -> None:
        self.pod = pod

    async def run(self) -> None:
        await asyncio.Event().wait()


def body(number: int, phase: str) -> dict[str, Any]:
    container = {"name": "main", "image": "moe-operator/trainer", "command": ["true"]}
    return {
        "metadata": {"name": f"pod-{number}", "namespace": "team", "uid": f"u-{number}"},
        "spec": {"nodeName": "local", "containers": [container]},
        "status": {"phase": phase},
    }


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """An agent with thirteen addresses for pods."""
    config = AgentConfig.model_validate(
        {
            "nodeName": "local",
            "kubeconfig": "/c/agent",
            "stateDir": tmp_path,
            "listenPort": 10250,
            "servingCertificate": "/c/s.pem",
            "servingKey": "/c/s.pem",
            "clientCa": "/c/ca.pem",
            "podNetwork": "127.77.0.0/28",
        }
    )
    monkeypatch.setattr(module, "PodWorker", Worker)
    agent = Agent(config)
    monkeypatch.setattr(agent, "_context", None, raising=False)
    monkeypatch.setattr(agent, "_admit", lambda pod: None)
    return agent


async def test_pods_that_have_ended_hold_no_address(agent: Agent) -> None:
    for number in range(40):
        agent._take(body(number, "Pending"), gone=False)
        worker = agent._workers[f"u-{number}"]
        assert worker.state.address.startswith("127.77.0."), f"pod {number} gets none"
        agent._take(body(number, "Succeeded"), gone=False)
    for task in agent._tasks.values():
        task.cancel()


async def test_pods_that_run_keep_theirs(agent: Agent) -> None:
    for number in range(15):
        agent._take(body(number, "Running"), gone=False)
    held = [worker.state.address for worker in agent._workers.values() if worker.state.address]
    assert len(held) == len(set(held)) < 15
    for task in agent._tasks.values():
        task.cancel()
