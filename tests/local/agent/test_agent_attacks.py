"""What a pod tries against the machine and the cluster that it runs on, and what it finds. One test for each line of the docs.

The same pod attacks two nodes: that of an agent that runs as root, and that of an agent that runs as an ordinary user.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moe_local.agent.machine import try_out
from moe_local.cluster import LocalCluster
from moe_local.folder import load_network

from .conftest import JSON, SecondAgent, Space, container_status, ordinary_user, pod, processes_with

ATTACK = Path(__file__).with_name("intruder.py").read_text()
NOBODY_MAY = "Operation not permitted"
#: Other suites on this machine have others.
SHARED_MEMORY_KEY = 0x6D6F_0000 + os.getpid() % 0x10000


@pytest.fixture(scope="module")
def shared_memory() -> Iterator[None]:
    """Memory that every program of the machine may use, in a file and by a key."""
    file = Path(f"/dev/shm/moe-intruder-test-{os.getpid()}")
    file.touch()
    libc = ctypes.CDLL(None, use_errno=True)
    identifier = libc.shmget(SHARED_MEMORY_KEY, 4096, 0o1666)
    assert identifier >= 0
    yield
    libc.shmctl(identifier, 0, None)
    file.unlink()


@pytest.fixture(scope="module", params=["root", "ordinary"])
def intruder(
    request: pytest.FixtureRequest,
    shared_memory: None,
    cluster: LocalCluster,
    make_space: Callable[[], Space],
    make_agent: Callable[..., SecondAgent],
) -> Iterator[JSON]:
    """What a pod without any security context of its own has found, and on which node it ran."""
    if lacks := try_out().lacks:
        pytest.skip(f"this machine does not allow it: {lacks}")
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("the suite runs as an ordinary user, so there is no agent that runs as root")
    agent = cluster.part_pids()["node-agent"]
    certificates = str(cluster.folder.certificates)
    spec: JSON = {"nodeName": "local"}
    if request.param == "ordinary" and os.geteuid() == 0:
        second = make_agent(**ordinary_user())
        agent, certificates = second.process.pid, str(second.config.kubeconfig.parent)
        spec = {"nodeName": second.name}
    network = load_network(cluster.folder)
    assert network
    space = make_space()
    env = {
        "AGENT": str(agent),
        "SECRETS": json.dumps([certificates, str(cluster.folder.certificates)]),
        "API": str(network.apiserver),
        "MACHINE_HOME": str(Path.home()),
        "SHARED_MEMORY_KEY": str(SHARED_MEMORY_KEY),
    }
    listed = [{"name": name, "value": value} for name, value in env.items()]
    space.apply(pod("intruder", f"{ATTACK}# marker-{space.name}", spec=spec, env=listed))
    space.wait_log("intruder", "END")
    found = json.loads(space.logs("intruder").splitlines()[0])
    yield found | {"lane": request.param, "agent": agent, "space": space.name}


def test_it_reads_no_key_of_the_cluster(intruder: JSON) -> None:
    assert intruder["keys"] == []


def test_it_sees_no_process_but_its_own(intruder: JSON) -> None:
    assert intruder["strangers"] == []


def test_it_reads_no_environment_and_no_open_file_of_another_process(intruder: JSON) -> None:
    assert intruder["environments"] == []
    assert intruder["descriptors"] == []


def test_it_cannot_signal_or_trace_the_agent(intruder: JSON) -> None:
    assert intruder["signal"] == "No such process"
    assert intruder["trace"] in (NOBODY_MAY, "No such process")


def test_it_cannot_trace_the_first_process_of_its_own_container(intruder: JSON) -> None:
    assert intruder["trace-init"] == NOBODY_MAY


def test_it_writes_nothing_on_the_machine(intruder: JSON) -> None:
    assert intruder["created"] == []
    assert intruder["changed"] == []


def test_it_is_no_root_of_the_machine_and_has_no_capability(intruder: JSON) -> None:
    (process,) = processes_with(f"marker-{intruder['space']}")
    assert 0 not in process.uids()
    assert 0 not in process.gids()
    assert set(intruder["capabilities"].values()) == {"0000000000000000"}
    assert intruder["noNewPrivileges"] == "1"


def test_it_gains_no_capability_in_namespaces_of_its_own(intruder: JSON) -> None:
    assert intruder["unshare"] != "done"


def test_it_shares_neither_memory_nor_a_name_with_the_machine(intruder: JSON) -> None:
    assert intruder["hostname"] == "intruder"
    assert intruder["shared-memory"] == []
    assert intruder["system-v"] == "No such file or directory"


def test_it_sees_no_home_folder_and_no_socket_of_a_service(intruder: JSON) -> None:
    needed = (sys.prefix, sys.base_prefix)
    assert [path for path in intruder["homes"] if not any(f.startswith(f"{path}/") for f in needed)] == []
    assert intruder["sockets"] == []


def test_it_reaches_the_network_of_the_machine(intruder: JSON) -> None:
    """This is not isolated, and the docs say so: pods have addresses of the machine's loopback interface."""
    assert intruder["api"] == "done"


# What a pod asks for, and what it may use


@pytest.fixture(scope="module", params=["control group", "watched"])
def limiting(request: pytest.FixtureRequest, make_agent: Callable[..., SecondAgent]) -> str:
    """A node that keeps memory limits in one of the two ways."""
    isolation = try_out()
    if request.param == "control group":
        if not isolation.cgroups.memory:
            pytest.skip("this machine does not let this user make control groups")
        return "local"
    if not isolation.cgroups.memory:
        return "local"
    if os.geteuid() != 0:
        pytest.skip("this user can make control groups, and only root could become one who cannot")
    return make_agent(**ordinary_user()).name


EAT = """import time
kept = []
while True:
    kept.append(b"x" * (8 << 20))
    time.sleep(0.01)
"""
EAT_IN_CHILDREN = """import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        kept = b"x" * (48 << 20)
        time.sleep(60)
for _ in range(3):
    os.wait()
    sys.exit(137)
"""
SHARE = """import os, time
kept = b"x" * (40 << 20)
for _ in range(3):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
for _ in range(3):
    os.wait()
"""


@pytest.mark.parametrize("script", [EAT, EAT_IN_CHILDREN], ids=["in one process", "in several"])
def test_what_exceeds_its_memory_limit_is_killed_and_called_so(
    space: Space, limiting: str, script: str
) -> None:
    space.run("eats", script, spec={"nodeName": limiting}, resources={"limits": {"memory": "128Mi"}})
    ended = container_status(space.wait_phase("eats", "Failed"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_memory_that_processes_share_counts_once(space: Space, limiting: str) -> None:
    space.run("shares", SHARE, spec={"nodeName": limiting}, resources={"limits": {"memory": "100Mi"}})
    space.wait_phase("shares", "Succeeded")


def test_a_container_sees_the_ids_that_its_pod_asks_for(space: Space) -> None:
    spec = {"securityContext": {"runAsNonRoot": True, "runAsUser": 1234, "runAsGroup": 2345}}
    space.run("asks", "id -u; id -g; touch /tmp/own; stat -c %u /tmp/own; id -un", spec=spec)
    space.wait_phase("asks", "Succeeded")
    assert space.logs("asks").split() == ["1234", "2345", "1234", "pod"]


def test_root_in_a_container_is_nobody_on_the_machine(space: Space) -> None:
    marker = f"as-root-{space.name}"
    space.run(
        "root",
        f"id -u; grep CapEff /proc/self/status; sleep 600 # {marker}",
        securityContext={"runAsUser": 0},
    )
    space.wait_log("root", "CapEff:\t0000000000000000")
    assert space.logs("root").startswith("0\n")
    assert processes_with(marker)
    assert not any(0 in process.uids() for process in processes_with(marker))


def test_a_pod_that_must_not_run_as_root_is_refused_if_it_asks_for_that(space: Space) -> None:
    space.run(
        "refused", "true", spec={"securityContext": {"runAsNonRoot": True}}, securityContext={"runAsUser": 0}
    )

    broken = "container's runAsUser breaks non-root policy"
    space.wait_waiting("refused", "CreateContainerConfigError", broken)


def test_pods_with_different_ids_share_the_files_of_a_claim(space: Space) -> None:
    spec: JSON = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "shared"}}]}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    space.apply(claim)
    mounts = [{"name": "v", "mountPath": "/moe/store"}]
    first = "umask 077; mkdir -p /moe/store/deep && echo one > /moe/store/deep/file"
    second = "echo two >> /moe/store/deep/file && cat /moe/store/deep/file && rm -r /moe/store/deep"
    for name, user, script in (("first", 4001, first), ("second", 4002, second)):
        space.run(name, script, spec=spec, volumeMounts=mounts, securityContext={"runAsUser": user})
        space.wait_phase(name, "Succeeded")
    assert space.logs("second") == "one\ntwo\n"
