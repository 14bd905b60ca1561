"""The agent is killed, stopped and started again; nothing is lost and nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_local.cluster import LocalCluster

from .conftest import (
    IMAGE,
    JSON,
    SecondAgent,
    Space,
    condition,
    container_status,
    folder_of,
    processes_with,
    wait_for,
)

SHARED: JSON = {
    "spec": {"volumes": [{"name": "shared", "emptyDir": {}}]},
    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
}


def restart(cluster: LocalCluster) -> None:
    cluster.up(operator=False, images={IMAGE: Path(sys.prefix)})


def test_a_killed_agent_finds_its_pods_again_and_starts_none_twice(space: Space) -> None:
    for name in ("stays", "ends", "goes"):
        space.run(
            name,
            f"echo begun; until [ -e /shared/end ]; do sleep 0.02; done; echo over; exit 5 # keep-{name}-{space.name}",
            **SHARED,
        )
        space.wait_ready(name)
    folders = {n: folder_of(space, n) for n in ("stays", "ends", "goes")}
    addresses = {n: (space.pod(n) or {})["status"]["podIP"] for n in ("stays", "ends")}
    before = {p.pid for p in processes_with(f"keep-stays-{space.name}")}
    space.cluster.kill("node-agent")
    assert {p.pid for p in processes_with(f"keep-stays-{space.name}")} == before
    (folders["ends"] / "volumes/shared/end").touch()
    wait_for("one ends unseen", lambda: not processes_with(f"keep-ends-{space.name}"))
    space.kubectl("delete", "pod", "goes", "--grace-period=0", "--force")
    space.run("new", "sleep 60")
    restart(space.cluster)
    ended = space.wait_phase("ends", "Failed")
    assert container_status(ended)["state"]["terminated"]["exitCode"] == 5
    assert space.logs("ends") == "begun\nover\n"
    wait_for("the deleted one is ended", lambda: not processes_with(f"keep-goes-{space.name}"))
    wait_for("its folder is gone", lambda: not folders["goes"].exists())
    found = space.wait_ready("new")
    assert found["status"]["podIP"] not in addresses.values()
    kept = space.wait_ready("stays")
    assert container_status(kept)["restartCount"] == 0
    assert kept["status"]["podIP"] == addresses["stays"]
    assert {p.pid for p in processes_with(f"keep-stays-{space.name}")} == before
    (folders["stays"] / "volumes/shared/end").touch()
    assert container_status(space.wait_phase("stays", "Failed"))["state"]["terminated"]["exitCode"] == 5
    assert space.logs("stays") == "begun\nover\n"


def test_a_lost_supervisor_is_a_disruption_and_takes_its_container_along(space: Space) -> None:
    seconds = f"65432.{os.getpid()}"  # No other suite on this machine has it.
    space.run("lost", f"(setsid sleep {seconds} &); sleep 600")

    def grandchild() -> bool:
        return any(p.name() == "sleep" for p in processes_with(seconds))

    wait_for("its grandchild runs", grandchild)
    space.wait_ready("lost")
    folder = str(folder_of(space, "lost"))
    supervisors = [p for p in processes_with(folder) if "run" in p.cmdline()]
    assert len(supervisors) == 1
    os.kill(supervisors[0].pid, signal.SIGKILL)
    found = space.wait_phase("lost", "Failed")
    assert condition(found, "DisruptionTarget") == "True"
    assert container_status(found)["state"]["terminated"]["exitCode"] == 137
    wait_for("nothing of it is left", lambda: not grandchild())


def test_what_ends_while_the_api_server_is_away_is_told_when_it_is_back(space: Space) -> None:
    space.run("ends", "until [ -e /shared/end ]; do sleep 0.02; done; exit 7", **SHARED)
    space.wait_ready("ends")
    folder = folder_of(space, "ends")
    space.cluster.kill("kube-apiserver")
    (folder / "volumes/shared/end").touch()
    wait_for("it has ended", lambda: (folder / "containers/main/1/exit.json").read_text().strip())
    restart(space.cluster)
    assert container_status(space.wait_phase("ends", "Failed"))["state"]["terminated"]["exitCode"] == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_hides_no_exit_and_is_survived(
    space: Space, second_agent: Callable[..., SecondAgent], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        agent = second_agent(isolation="none", state_dir=disk)
        there: JSON = {**SHARED, "spec": {**SHARED["spec"], "nodeName": agent.name}}
        env = [{"name": "FILL", "value": "/shared/fill"}]
        space.run(
            "fills", "dd if=/dev/zero of=$FILL 2>/dev/null; yes full | head -9999; exit 5", **there, env=env
        )
        found = container_status(space.wait_phase("fills", "Failed"))
        assert (found["state"]["terminated"]["exitCode"], found["restartCount"]) == (5, 0)
        space.run("next", "echo fine", **there)
        space.kubectl("delete", "pod", "fills")
        space.wait_phase("next", "Succeeded")
        assert space.logs("next") == "fine\n"
        agent.stop()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("policy", ["Never", "Always"])
def test_an_agent_that_is_stopped_ends_its_pods_and_those_that_may_restart_do(
    space: Space, policy: str
) -> None:
    space.run("drained", "trap 'exit 0' TERM; while :; do sleep 0.05; done", spec={"restartPolicy": policy})
    space.wait_ready("drained")
    os.kill(space.cluster.part_pids()["node-agent"], signal.SIGTERM)
    wait_for("the agent is gone", lambda: "node-agent" not in space.cluster.part_pids())
    assert not processes_with(str(folder_of(space, "drained")))
    restart(space.cluster)
    if policy == "Never":
        found = space.wait_phase("drained", "Failed")
        assert condition(found, "DisruptionTarget") == "True"
    else:
        wait_for("a restart", lambda: container_status(space.pod("drained") or {})["restartCount"] == 1)
        space.wait_ready("drained")
