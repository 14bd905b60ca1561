"""Nodes that isolate pods in other ways: as an ordinary user, and not at all."""

from __future__ import annotations

import json
import os
import tempfile
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moe_local.agent.config import Image
from moe_local.api import AdminAPI

from .conftest import IMAGE, SecondAgent, Space, ordinary_user, wait_for

MakeAgent = Callable[..., SecondAgent]


@pytest.fixture(scope="module", autouse=True)
def silent_agent(make_agent: MakeAgent) -> SecondAgent:
    """An agent that is killed before all tests of this file, so that the last of them need not wait for half a minute."""
    agent = make_agent(isolation="none")
    agent.process.kill()
    agent.process.wait()
    return agent


def test_who_has_no_capability_isolates_pods_in_a_user_namespace(
    space: Space, second_agent: MakeAgent
) -> None:
    powerless = ("setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all", "--no-new-privs")
    agent = second_agent(
        through=powerless if os.geteuid() == 0 else (),
        isolation="mount-namespace",
        hidden_paths=(Path("/usr/share"),),
    )
    mounts = [
        {"name": "s", "mountPath": "/moe/store"},
        {"name": "r", "mountPath": "/moe/read", "readOnly": True},
    ]
    volumes = [{"name": "s", "emptyDir": {}}, {"name": "r", "emptyDir": {}}]
    probe = {"exec": {"command": ["test", "-e", "/moe/store/x"]}, "periodSeconds": 1}
    script = "id -u; ls /usr/share | wc -l; touch /moe/store/x; touch /moe/read/x || echo refused; sleep 60"
    spec = {"nodeName": agent.name, "volumes": volumes}
    space.run("user", script, spec=spec, volumeMounts=mounts, readinessProbe=probe)
    space.wait_ready("user")
    assert space.logs("user").splitlines()[:2] == [str(os.geteuid()), "0"]
    assert "refused" in space.logs("user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mask a part of /proc, as containers do")
def test_where_proc_is_masked_pods_see_names_of_processes_and_no_more(
    space: Space, second_agent: MakeAgent
) -> None:
    agent = second_agent(**ordinary_user(first="mount -t tmpfs none /proc/irq"))
    node = space.api.get(f"/api/v1/nodes/{agent.name}") or {}
    assert (
        "names and arguments of all processes"
        in node["metadata"]["annotations"]["moe-operator.dev/not-isolated"]
    )
    script = f"""
cat /proc/{agent.process.pid}/cmdline | grep -c moe_local
(cat /proc/{agent.process.pid}/environ; cd /proc/{agent.process.pid}/root && cat etc/hosts) | wc -c
kill -0 {agent.process.pid} || echo not there
sleep 60
"""
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    space.run("sees", script, spec={"nodeName": agent.name}, readinessProbe=probe)
    space.wait_ready("sees")
    said = [line for line in space.logs("sees").splitlines() if line and ": " not in line]
    assert said == ["1", "0", "not there"]


@pytest.fixture
def under_tmp() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_an_environment_under_tmp_stays_visible_beneath_the_pods_own_tmp(
    space: Space, second_agent: MakeAgent, under_tmp: Path
) -> None:
    environment, editable = under_tmp / "environment", under_tmp / "checkout"
    venv.create(environment)
    editable.mkdir()
    (editable / "edited.py").write_text("print('edited')")
    packages = next(environment.glob("lib/python3*/site-packages"))
    (packages / "edited.pth").write_text(f"{editable}\n")
    agent = second_agent(isolation="mount-namespace", images={IMAGE: Image(environment=environment)})
    mounts = [{"name": "t", "mountPath": "/tmp"}]
    spec = {"nodeName": agent.name, "volumes": [{"name": "t", "emptyDir": {}}]}
    space.run(
        "here",
        "import sys, edited, os; print(sys.prefix, os.listdir('/tmp'))",
        spec=spec,
        volumeMounts=mounts,
    )
    space.wait_phase("here", "Succeeded")
    assert space.logs("here") == f"edited\n{environment} ['{under_tmp.name}']\n"


#: Where pods run as the user who started the cluster, that user's own folders are not closed to them (local/README.md).
of_root = pytest.mark.skipif(os.geteuid() != 0, reason="pods run as this user, and see this user's files")


@pytest.mark.parametrize("top", ["/tmp", pytest.param("/var/tmp", marks=of_root)])
def test_an_environment_in_folders_that_are_closed_to_others_works_and_its_neighbours_stay_hidden(
    space: Space, second_agent: MakeAgent, top: str
) -> None:
    with tempfile.TemporaryDirectory(dir=top) as closed:
        environment = Path(closed) / "image"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "greet").write_text("#!/bin/sh\necho hello\n")
        (environment / "bin" / "greet").chmod(0o755)
        environment.chmod(0o700)
        (Path(closed) / "private").touch()
        agent = second_agent(isolation="mount-namespace", images={IMAGE: Image(environment=environment)})
        space.run("greets", f"greet; ls {closed}", spec={"nodeName": agent.name})
        space.wait_phase("greets", "Succeeded")
        assert space.logs("greets") == "hello\nimage\n"


def test_without_isolation_paths_and_peers_are_rewritten(space: Space, second_agent: MakeAgent) -> None:
    agent = second_agent(isolation="none")
    node = space.api.get(f"/api/v1/nodes/{agent.name}") or {}
    assert node["metadata"]["annotations"]["moe-operator.dev/isolation"] == "none"
    assert any("isolation: none" in c["message"] for c in node["status"]["conditions"])
    assert (
        "they can read the cluster's keys" in node["metadata"]["annotations"]["moe-operator.dev/not-isolated"]
    )
    service = {"selector": {"app": "peer"}, "clusterIP": "None"}
    space.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "peer"}, "spec": service})
    volumes = [{"name": "s", "emptyDir": {}}]
    spec = {"nodeName": agent.name, "volumes": volumes}
    mounts = [{"name": "s", "mountPath": "/moe/store"}]
    space.run("peer", "sleep 60", labels={"app": "peer"}, spec=spec)
    address = space.wait_ready("peer")["status"]["podIP"]
    script = """import json, os
json.dump(dict(os.environ), open(os.environ["MOE_STORE"] + "/environment", "w"))
open(os.environ["MOE_TERMINATION_LOG"], "w").write(open(os.environ["MOE_FILE"]).read())
"""
    env = [
        {"name": "MOE_STORE", "value": "/moe/store"},
        {"name": "MOE_FILE", "value": "/moe/store/environment"},
        {"name": "MOE_PEER", "value": "http://peer:8080/v1"},
    ]
    space.run("plain", script, spec=spec, volumeMounts=mounts, env=env)

    found = space.wait_phase("plain", "Succeeded")
    seen = json.loads(found["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    assert seen["MOE_PEER"] == f"http://{address}:8080/v1"
    assert seen["MOE_STORE"].startswith(str(agent.config.state_dir))
    assert seen["KUBECONFIG"].startswith(str(agent.config.state_dir))


def test_a_silent_node_is_not_ready_until_its_agent_is_back(api: AdminAPI, silent_agent: SecondAgent) -> None:
    def ready() -> dict[str, str]:
        node = api.get(f"/api/v1/nodes/{silent_agent.name}") or {}
        found: dict[str, str] = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
        return found

    wait_for("the node is not ready", lambda: ready()["status"] == "Unknown")
    silent = ready()
    assert silent["reason"] == "NodeStatusUnknown"
    silent_agent.start()
    wait_for("the node is ready", lambda: ready()["status"] == "True")
    assert ready()["lastHeartbeatTime"] > silent["lastHeartbeatTime"]
