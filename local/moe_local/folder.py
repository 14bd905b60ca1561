"""The folder of a local cluster, mode 0700, and what is remembered in it.

<root>/<name>.lock            held by the process that changes the cluster
<root>/<name>/network.json    ports and pod network, chosen once
              certificates/   keys and certificates (certificates.py)
              kubeconfig/     admin, kube-controller-manager, kube-scheduler, agent
              etcd/           etcd's data
              agent/          the node agent's own folder: pods and volumes
              run/            one file per running part: which process it is (processes.py)
              log/            one file per part, and the API server's audit log
              bin/            kubectl and helm
              cache/          helm's and kubectl's caches
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moe_local.errors import LocalClusterError

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
PORTS = range(20000, 32000)
"""Below Linux's ephemeral ports, so that no outgoing connection takes one of them while the cluster is down."""


class Network(BaseModel):
    """The ports of a cluster's parts and the network of its pods; chosen once and then kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int
    agent: int
    pods: IPv4Network

    @property
    def api_url(self) -> str:
        """Return the URL of the API server."""
        return f"https://127.0.0.1:{self.apiserver}"


@dataclass(frozen=True)
class ClusterFolder:
    """The folder of one cluster. Creating the object touches no file; `make` and `remove` do."""

    path: Path

    @classmethod
    def named(cls, name: str) -> ClusterFolder:
        """Return the folder of the cluster with this name; raises LocalClusterError for an invalid name."""
        if not NAME.fullmatch(name):
            raise LocalClusterError(
                f"cluster name {name!r}: use a lower-case letter, then up to 39 lower-case letters, digits or dashes",
                fix="choose another --name",
            )
        return cls(state_root() / name)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.path.name

    @property
    def certificates(self) -> Path:
        """Keys and certificates."""
        return self.path / "certificates"

    @property
    def network_file(self) -> Path:
        """Ports and pod network."""
        return self.path / "network.json"

    def kubeconfig(self, user: str) -> Path:
        """Return the kubeconfig of `admin`, of a component or of the agent."""
        return self.path / "kubeconfig" / user

    def log(self, part: str) -> Path:
        """Return the file with a part's output."""
        return self.path / "log" / f"{part}.log"

    @property
    def audit_log(self) -> Path:
        """The audit log: one JSON line for every write request to the API server."""
        return self.path / "log" / "audit.jsonl"

    @property
    def audit_policy(self) -> Path:
        """The file that says which requests are logged in the audit log."""
        return self.path / "audit-policy.yaml"

    @property
    def programs(self) -> Path:
        """The folder with kubectl and helm, for PATH."""
        return self.path / "bin"

    @property
    def agent_config(self) -> Path:
        """The configuration of the node agent."""
        return self.path / "agent.json"

    @property
    def given(self) -> Path:
        """The values and images that the cluster was last started with, for the next start."""
        return self.path / "given.json"

    def make(self) -> None:
        """Create the folder and its sub-folders, each readable by its owner only."""
        for folder in ("", "kubeconfig", "etcd", "agent", "run", "log", "bin", "cache"):
            (self.path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / folder).chmod(0o700)

    def remove(self) -> None:
        """Remove the folder with all the data in it."""
        if self.path.exists():
            _open_folders(self.path)
            shutil.rmtree(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the cluster against other processes that would change it; raises LocalClusterError if one has locked it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalClusterError(
                    f"cluster {self.name!r} is being started or stopped by another process",
                    fix="wait for it to finish, then try again",
                ) from None
            yield


def _open_folders(top: Path) -> None:
    """Give this user back the right to empty folders that a pod has closed, which belong to the same user."""
    for _, folders, _, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in folders:
            if stat.S_ISDIR(os.lstat(name, dir_fd=descriptor).st_mode):
                os.chmod(name, 0o700, dir_fd=descriptor)


def state_root() -> Path:
    """Return the folder that contains every cluster's folder: $MOE_LOCAL_STATE, or else the user's state folder."""
    if chosen := os.environ.get("MOE_LOCAL_STATE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base).absolute() / "moe-operator"


def write_private(path: Path, text: str) -> bool:
    """Write a file with mode 0600, as a whole or not at all; return False if it already has this content."""
    if path.exists() and path.read_text() == text:
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def load_network(folder: ClusterFolder) -> Network | None:
    """Return the network of a cluster that was started before, else None."""
    if not folder.network_file.exists():
        return None
    return _read_network(folder.network_file)


def choose_network(folder: ClusterFolder, *, rechoose: bool) -> Network:
    """Return the remembered network, or a new one if there is none or if one of its ports has been taken.

    `rechoose` says that no part runs, so that ports may change; without it the remembered ports are kept.
    """
    network = load_network(folder)
    if network is None or (rechoose and not all(port_is_free(port) for port in _ports_of(network))):
        pods = network.pods if network else _free_pod_network(folder.path.parent)
        fields = [field for field in Network.model_fields if field != "pods"]
        ports = dict(zip(fields, free_ports(len(fields)), strict=True))
        network = Network.model_validate({**ports, "pods": pods})
        write_private(folder.network_file, network.model_dump_json(indent=2))
    return network


def free_ports(count: int) -> list[int]:
    """Return different TCP ports of 127.0.0.1 on which no program listens."""
    candidates = random.sample(PORTS, len(PORTS))
    ports = []
    for port in candidates:
        if port_is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise LocalClusterError(
        f"no {count} free TCP ports between {PORTS.start} and {PORTS.stop} on 127.0.0.1",
        fix="stop some of the programs that listen there",
    )


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on this TCP port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _read_network(file: Path) -> Network:
    try:
        return Network.model_validate_json(file.read_text())
    except ValidationError as error:
        raise LocalClusterError(
            f"{file} is damaged: {error}",
            fix=f"remove the folder {file.parent}, and with it the cluster's data",
        ) from None


def _ports_of(network: Network) -> list[int]:
    return [value for value in network.model_dump().values() if isinstance(value, int)]


def _free_pod_network(root: Path) -> IPv4Network:
    """Return a /24 of the loopback network that no other cluster has. 127.0.x belongs to the machine."""
    taken = {
        Network.model_validate_json(file.read_text()).pods
        for file in root.glob("*/network.json")
        if file.is_file()
    }
    while True:
        network = IPv4Network(f"127.{random.randint(16, 250)}.{random.randint(0, 255)}.0/24")
        if network not in taken:
            return network
