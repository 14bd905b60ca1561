"""Pods on a real API server with its controllers and scheduler, run by the real node agent."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

from moe_local.agent.config import AgentConfig, BackOff, Image
from moe_local.api import AdminAPI
from moe_local.cluster import LocalCluster
from moe_local.folder import load_network

T = TypeVar("T")
JSON = dict[str, Any]
IMAGE = "moe-test/python"

#: The API group and version of each kind that is not in the core one.
GROUPS = {"jobs": "/apis/batch/v1", "deployments": "/apis/apps/v1"}


#: Seconds after which a test gives up. On a machine that is busy with other things everything comes late.
PATIENCE = 90.0


def wait_for(what: str, look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


class Space:
    """One namespace and what a test does in it.

    Most goes to the API server directly: a kubectl takes a tenth of a second of processor time to start.
    """

    def __init__(self, cluster: LocalCluster, api: AdminAPI, name: str) -> None:
        self.cluster, self.api, self.name = cluster, api, name

    def path(self, kind: str, name: str) -> str:
        """The URL path of an object; the kind is the plural in small letters."""
        return f"{GROUPS.get(kind, '/api/v1')}/namespaces/{self.name}/{kind}/{name}"

    def apply(self, *manifests: JSON) -> None:
        for manifest in manifests:
            self.api.apply(self.path(f"{manifest['kind'].lower()}s", manifest["metadata"]["name"]), manifest)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments).stdout

    def get(self, kind: str, name: str) -> JSON | None:
        return self.api.get(self.path(kind, name))

    def pods(self, selector: str = "") -> list[JSON]:
        found = self.api.get(f"/api/v1/namespaces/{self.name}/pods?labelSelector={selector}")
        return list(found["items"]) if found else []

    def pod(self, name: str) -> JSON | None:
        return self.get("pods", name)

    def run(self, name: str, script: str, **fields: Any) -> None:
        """Apply a pod."""
        self.apply(pod(name, script, **fields))

    def wait_phase(self, name: str, phase: str, seconds: float = PATIENCE) -> JSON:
        def look() -> JSON | None:
            found = self.pod(name)
            return found if found and found.get("status", {}).get("phase") == phase else None

        return wait_for(f"pod {name} is {phase}", look, seconds)

    def wait_ready(self, name: str, value: str = "True", seconds: float = PATIENCE) -> JSON:
        def look() -> JSON | None:
            found = self.pod(name)
            return found if found and condition(found, "Ready") == value else None

        return wait_for(f"pod {name} has Ready={value}", look, seconds)

    def wait_waiting(self, name: str, reason: str, text: str = "") -> str:
        """Wait until a pod's container waits for a reason, with some text in its message; return the message.

        It waits for others before: the API server lets a node act for a new pod only after a moment.
        """

        def look() -> JSON | None:
            statuses = (self.pod(name) or {}).get("status", {}).get("containerStatuses") or [{"state": {}}]
            waiting: JSON = statuses[0]["state"].get("waiting") or {}
            fits = waiting.get("reason") == reason and text in waiting.get("message", "")
            return waiting if fits else None

        return str(wait_for(f"pod {name} waits for {reason}: {text}", look)["message"])

    def wait_gone(self, name: str, seconds: float = PATIENCE) -> None:
        wait_for(f"pod {name} is gone", lambda: self.pod(name) is None, seconds)

    def logs(self, name: str, *options: str) -> str:
        """What a pod has said; with options, as kubectl prints it."""
        if options:
            return self.kubectl("logs", name, *options)
        status, text = self.api.request("GET", f"{self.path('pods', name)}/log")
        assert status == 200, text
        return text

    def wait_log(self, name: str, text: str, seconds: float = PATIENCE) -> str:
        def look() -> str | None:
            status, log = self.api.request("GET", f"{self.path('pods', name)}/log")
            return log if status == 200 and text in log else None

        return wait_for(f"{text!r} in the log of {name}", look, seconds)


def condition(found: JSON, kind: str) -> str | None:
    conditions = found.get("status", {}).get("conditions") or []
    return next((str(c["status"]) for c in conditions if c["type"] == kind), None)


def container_status(found: JSON, index: int = 0) -> JSON:
    return dict(found["status"]["containerStatuses"][index])


def container(script: str, name: str = "main", **fields: Any) -> JSON:
    shell = "sh" if not script.startswith("import ") else "python3"
    return {"name": name, "image": IMAGE, "command": [shell, "-c", script], **fields}


def pod(
    name: str, script: str, *, spec: JSON | None = None, labels: JSON | None = None, **fields: Any
) -> JSON:
    """A pod with one container; `fields` are the container's."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "containers": [container(script, **fields)],
            **(spec or {}),
        },
    }


def folder_of(space: Space, name: str) -> Path:
    """The folder in which the agent keeps a pod."""
    uid = str((space.pod(name) or {})["metadata"]["uid"])
    return space.cluster.folder.path / "agent" / "pods" / uid


def processes_with(marker: str) -> list[psutil.Process]:
    """Every process, supervisors aside, that was started with this text among its arguments."""
    return [
        p for p in psutil.process_iter(["cmdline"]) if any(marker in part for part in p.info["cmdline"] or [])
    ]


@pytest.fixture(scope="session")
def cluster(state_root: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster("agent")
    cluster.up(operator=False, images={IMAGE: Path(sys.prefix)})
    yield cluster
    cluster.down(delete=True)


@pytest.fixture(scope="session")
def api(cluster: LocalCluster) -> AdminAPI:
    network = load_network(cluster.folder)
    assert network
    certificates = cluster.folder.certificates
    return AdminAPI(
        network.apiserver, authority=certificates / "cluster-ca.pem", pair=certificates / "admin.pem"
    )


_numbers = itertools.count()


@pytest.fixture(scope="module")
def make_space(cluster: LocalCluster, api: AdminAPI) -> Iterator[Callable[[], Space]]:
    """Makes namespaces that live as long as the tests of one file."""
    names: list[str] = []

    def make() -> Space:
        # No other suite on this machine has the name, by which tests find their processes.
        name = f"test-{os.getpid()}-{next(_numbers)}"
        names.append(name)
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.apply(f"/api/v1/namespaces/{name}", manifest)
        space = Space(cluster, api, name)
        wait_for("the default service account", lambda: space.get("serviceaccounts", "default"))
        return space

    yield make
    for name in names:
        api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def space(api: AdminAPI, make_space: Callable[[], Space]) -> Iterator[Space]:
    """A namespace of the test's own."""
    made = make_space()
    yield made
    api.request("DELETE", f"/api/v1/namespaces/{made.name}")


def ordinary_user(first: str = "true") -> JSON:
    """How to start another agent as an ordinary user, if the tests run as root: arguments of `second_agent`.

    The user sees the interpreter even if that is in a folder of root's. `first` is a command of root's that is run before,
    in the agent's mount namespace.
    """
    base = Path(sys.base_prefix)
    closed = [parent for parent in reversed(base.parents) if not parent.stat().st_mode & 0o001]
    script = 'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"'
    if closed:
        script = (
            f"spare=$(mktemp -d) && mount --bind {base} $spare && mount -t tmpfs -o mode=755 none {closed[0]} && "
            f"mkdir -p {base} && mount --bind $spare {base} && umount $spare && rmdir $spare && {script}"
        )
    return {"through": ("unshare", "--mount", "sh", "-c", f"{first} && {script}", "sh"), "user": 65534}


class SecondAgent:
    """Another node of the same cluster, with a configuration of its own."""

    def __init__(
        self, cluster: LocalCluster, folder: Path, through: tuple[str, ...], user: int | None, **changes: Any
    ) -> None:
        self.name = f"second-{next(_numbers)}"
        self._folder, self._through = folder, through
        kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
        for part in (kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]):
            for key in part.keys() - {"server"}:
                part[key] = str(self._copy(Path(part[key])))
        certificates = cluster.folder.certificates
        serving = self._copy(certificates / "agent-serving.pem")
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        self.config = AgentConfig(
            node_name=self.name,
            kubeconfig=folder / "kubeconfig",
            listen_port=_free_port(),
            serving_certificate=serving,
            serving_key=serving,
            client_ca=self._copy(certificates / "agent-ca.pem"),
            pod_network=f"127.{random.randint(16, 250)}.{random.randint(0, 255)}.0/24",
            back_off=BackOff(initial=1, maximum=2),
            heartbeat_seconds=2,
            **{
                "state_dir": folder / "state",
                "images": {IMAGE: Image(environment=Path(sys.prefix))},
                **changes,
            },
        )
        (folder / "agent.json").write_text(self.config.model_dump_json(by_alias=True))
        if user is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, user)
        self.start()

    def _copy(self, source: Path) -> Path:
        target = self._folder / source.name
        target.write_bytes(source.read_bytes())
        return target

    def start(self) -> None:
        with open(self._folder / "agent.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._through,
                    sys.executable,
                    "-m",
                    "moe_local.agent",
                    "--config",
                    str(self._folder / "agent.json"),
                ],
                stderr=log,
                cwd="/",
            )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def second_agent(cluster: LocalCluster, api: AdminAPI) -> Iterator[Callable[..., SecondAgent]]:
    """Makes further nodes for one test; pods reach them by `nodeName`."""
    yield from _agents(cluster, api)


@pytest.fixture(scope="module")
def make_agent(cluster: LocalCluster, api: AdminAPI) -> Iterator[Callable[..., SecondAgent]]:
    """Makes further nodes for the tests of one file."""
    yield from _agents(cluster, api)


def _agents(cluster: LocalCluster, api: AdminAPI) -> Iterator[Callable[..., SecondAgent]]:
    agents: list[SecondAgent] = []
    folders: list[Path] = []

    def make(*, through: tuple[str, ...] = (), user: int | None = None, **changes: Any) -> SecondAgent:
        folder = Path(tempfile.mkdtemp(prefix="moe-node-"))  # pytest's own folders are closed to other users
        folders.append(folder)
        agent = SecondAgent(cluster, folder, through, user, **changes)
        agents.append(agent)

        def look() -> bool:
            assert agent.process.poll() is None, (folder / "agent.log").read_text()
            node = api.get(f"/api/v1/nodes/{agent.name}")
            return node is not None and condition(node, "Ready") == "True"

        wait_for(f"node {agent.name} is ready", look)
        return agent

    yield make
    for agent in agents:
        agent.stop()
        api.request("DELETE", f"/api/v1/nodes/{agent.name}")
    for folder in folders:
        shutil.rmtree(folder)
