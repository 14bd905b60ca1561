"""The order of starts and ends, restarts, probes, and pods that change while others look."""

from __future__ import annotations

import os
import time
from typing import Any

from .conftest import (
    JSON,
    PATIENCE,
    Space,
    container,
    container_status,
    folder_of,
    pod,
    processes_with,
    wait_for,
)

SHARED = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}


def deployment(name: str, script: str, *, replicas: int = 2, **fields: Any) -> JSON:
    template = pod("x", script, **fields)
    template["spec"]["restartPolicy"] = "Always"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def headless(name: str) -> JSON:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 8080}]},
    }


def test_init_containers_go_first_and_a_sidecar_ends_last(space: Space) -> None:
    say = "echo {} >> /shared/order"
    init = [
        container(say.format("first"), "first", **MOUNT),
        container(
            f"{say.format('side')}; trap '{say.format('side-ends')}; cp /shared/order /dev/termination-log; exit 0' TERM;"
            " while :; do sleep 0.05; done",
            "side",
            restartPolicy="Always",
            startupProbe={"exec": {"command": ["grep", "side", "/shared/order"]}, "periodSeconds": 1},
            **MOUNT,
        ),
        container(say.format("last"), "last", **MOUNT),
    ]
    space.run("ordered", say.format("main"), spec={**SHARED, "initContainers": init}, **MOUNT)
    found = space.wait_phase("ordered", "Succeeded")
    side = next(s for s in found["status"]["initContainerStatuses"] if s["name"] == "side")
    assert side["state"]["terminated"]["message"].split() == ["first", "side", "last", "main", "side-ends"]


def test_a_crashing_container_is_started_again_and_its_last_log_is_kept(space: Space) -> None:
    script = (
        "n=$(cat /shared/n 2>/dev/null || echo 0); echo $((n+1)) > /shared/n; echo attempt $n; [ $n = 2 ]"
    )
    space.run("crashes", script, spec={**SHARED, "restartPolicy": "OnFailure"}, **MOUNT)

    def backing_off() -> bool:
        found = space.pod("crashes") or {}
        statuses = found.get("status", {}).get("containerStatuses") or [{"state": {}}]
        return bool(statuses[0]["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")

    wait_for("the back-off", backing_off)
    assert space.logs("crashes", "--previous") == "attempt 0\n"
    found = container_status(space.wait_phase("crashes", "Succeeded"))
    assert found["restartCount"] == 2
    assert found["lastState"]["terminated"]["exitCode"] == 1
    assert space.logs("crashes") == "attempt 2\n"


def test_readiness_follows_its_probe_and_names_follow_readiness(space: Space) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    space.apply(headless("flag"))
    watch = """import socket, time
seen = None
while True:
    try:
        found = socket.gethostbyname("flag")
    except OSError:
        found = "nobody"
    if found != seen:
        print(found, flush=True)
        seen = found
    time.sleep(0.02)
"""
    space.run("looks", watch)
    space.wait_log("looks", "nobody\n")  # It looks before there is anything to see.
    space.run("flag", "sleep 600", labels={"app": "flag"}, readinessProbe=probe, spec=SHARED, **MOUNT)
    space.wait_phase("flag", "Running")
    flag = folder_of(space, "flag") / "volumes/shared/ready"
    flag.touch()
    address = space.wait_ready("flag", "True")["status"]["podIP"]
    space.wait_log("looks", f"nobody\n{address}\n")
    flag.unlink()
    space.wait_ready("flag", "False")
    space.wait_log("looks", f"nobody\n{address}\nnobody\n")
    assert space.logs("looks") == f"nobody\n{address}\nnobody\n"


def test_a_failed_liveness_probe_restarts_the_container(space: Space) -> None:
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 2}
    space.run(
        "sick",
        "trap 'exit 0' TERM; while :; do sleep 0.05; done",
        livenessProbe=probe,
        spec={"restartPolicy": "Always"},
    )
    wait_for(
        "a restart",
        lambda: (
            container_status(space.pod("sick") or {})["restartCount"] >= 1 if ran(space, "sick") else None
        ),
    )

    def told(reason: str, words: str) -> bool:
        path = f"/api/v1/namespaces/{space.name}/events?fieldSelector=involvedObject.name%3Dsick"
        events = (space.api.get(path) or {"items": []})["items"]
        return any(event["reason"] == reason and words in event["message"] for event in events)

    # Events are written besides all else, and may come later than the restart.
    words = "Container main failed liveness probe, will be restarted"
    wait_for("the end to be told", lambda: told("Killing", words))
    wait_for("its reason to be told", lambda: told("Unhealthy", "dial tcp 127."))


def ran(space: Space, name: str) -> bool:
    found = space.pod(name)
    return bool(found and found["status"].get("containerStatuses"))


def test_a_deployment_rolls_over_and_leaves_no_process_behind(space: Space) -> None:
    serve = 'cd /tmp; echo {0} > version; exec python3 -m http.server --bind "$POD_IP" 8080 --directory /tmp # {0}'
    env = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    probe = {"httpGet": {"port": "http", "path": "/version"}, "periodSeconds": 1}
    fields: JSON = {"env": env, "readinessProbe": probe, "ports": [{"name": "http", "containerPort": 8080}]}
    ask = """import time, urllib.request
while True:
    try:
        print(urllib.request.urlopen("http://web:8080/version", timeout=2).read().decode().strip(), flush=True)
    except OSError as error:
        print("failed", error, flush=True)
    time.sleep(0.05)
"""
    space.apply(headless("web"), deployment("web", serve.format("one"), **fields))
    space.kubectl("rollout", "status", "deployment/web", f"--timeout={PATIENCE:.0f}s")
    space.run("asks", ask)
    space.wait_log("asks", "one\n")
    before = {p["status"]["podIP"] for p in space.pods("app=web")}
    all_of = "import socket; print(*sorted({found[4][0] for found in socket.getaddrinfo('web', 8080)}))"
    space.run("all", all_of)
    space.wait_phase("all", "Succeeded")
    assert space.logs("all").split() == sorted(before)
    space.apply(deployment("web", serve.format("two"), **fields))
    space.kubectl("rollout", "status", "deployment/web", f"--timeout={PATIENCE:.0f}s")
    wait_for("the old pods are gone", lambda: len(space.pods("app=web")) == 2)
    space.wait_log("asks", "two\n")
    assert not before & {p["status"]["podIP"] for p in space.pods("app=web")}
    assert not any(processes_with(f"--bind {address}") for address in before)
    assert not any(processes_with(address) for address in before)


def test_an_ending_pod_runs_its_hook_then_gets_sigterm_then_is_killed_with_all_it_started(
    space: Space,
) -> None:
    grandchild = f"sleep 98765.{os.getpid()}"  # No other suite on this machine has it.
    script = f"echo up; trap 'echo terminated' TERM; (setsid {grandchild} &) ; while :; do sleep 0.05; done"
    hook = {
        "preStop": {
            "exec": {
                "command": ["sh", "-c", "echo hook > /proc/1/fd/1 2>/dev/null; echo hook > /shared/hook"]
            }
        }
    }
    space.run("stubborn", script, lifecycle=hook, spec=SHARED, **MOUNT)
    space.wait_log("stubborn", "up")
    wait_for("its grandchild runs", lambda: processes_with(grandchild.split()[1]))
    folder = folder_of(space, "stubborn")
    hook_file = folder / "volumes/shared/hook"
    hook_file.touch()
    hook_file.chmod(0o666)
    with hook_file.open() as hooked, (folder / "containers/main/1/log").open() as log:
        began = time.monotonic()
        space.kubectl("delete", "pod", "stubborn", "--wait=false")
        space.wait_gone("stubborn")
        ended = time.monotonic()
        # Both files can still be read here, however soon their folder was removed.
        assert hooked.read() == "hook\n"
        assert "terminated" in log.read()
    # It had its grace of 2 s, and not the 30 s of a pod that asks for none.
    assert 1.5 < ended - began < 25
    assert not processes_with(grandchild.split()[1])
    wait_for("its folder is gone", lambda: not folder.exists())


def test_a_deadline_ends_a_pod(space: Space) -> None:
    space.run("slow", "sleep 60")
    # A deadline that comes before the process is there ends it in another way.
    space.wait_phase("slow", "Running")
    space.kubectl("patch", "pod", "slow", "--type=merge", "-p", '{"spec": {"activeDeadlineSeconds": 1}}')
    found = space.wait_phase("slow", "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert container_status(found)["state"]["terminated"]["exitCode"] == 143


def test_a_forced_deletion_kills_at_once(space: Space) -> None:
    space.run(
        "forced",
        f"trap '' TERM; while :; do sleep 0.05; done # forced-{space.name}",
        spec={"terminationGracePeriodSeconds": 60},
    )
    space.wait_phase("forced", "Running")
    assert processes_with(f"forced-{space.name}")
    space.kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    wait_for("its process is gone", lambda: not processes_with(f"forced-{space.name}"))
