"""A small Kubernetes cluster of this machine's own processes: start it, repair it, stop it, ask how it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from moe_local.agent.config import AgentConfig, Image
from moe_local.api import AdminAPI
from moe_local.binary import PROGRAMS, ensure_controlplane
from moe_local.bootstrap import apply_bootstrap
from moe_local.certificates import NODE_NAME, ensure_certificates
from moe_local.errors import LocalClusterError
from moe_local.folder import ClusterFolder, Network, choose_network, load_network, write_private
from moe_local.kubeconfig import write_kubeconfigs
from moe_local.parts import AUDIT_POLICY, LOG_LIMIT_BYTES, Part, make_parts
from moe_local.processes import Process, start

START_SECONDS = 60.0
"""How long one part may take to become healthy on a busy machine."""

IMAGES = ("moe-operator/operator", "moe-operator/gateway", "moe-operator/trainer")

OnStep = Callable[[str, float], None]
"""Told each finished step, in words, and how many seconds it took."""


@dataclass(frozen=True)
class PartStatus:
    """How one process of the cluster is."""

    name: str
    process: Process | None
    healthy: bool


class LocalCluster:
    """The cluster of one name. Every method may be called from any process; the folder is the only state."""

    def __init__(self, name: str = "moe") -> None:
        self.folder = ClusterFolder.named(name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder.kubeconfig("admin")

    def up(
        self,
        *,
        operator: bool = True,
        node: bool = True,
        values: Sequence[Path] = (),
        images: Mapping[str, Path] | None = None,
        on_step: OnStep = lambda step, seconds: None,
    ) -> None:
        """Start what does not run, keep what does, and return when all of it is ready.

        `node=False` leaves the node out (an API server with controllers, but nothing runs pods); `operator=False`
        leaves the chart out. `values` are further files for the chart. `images` says which environment (a folder
        with bin/) stands for an image, beside the three of this project, which are where Python runs now.

        Raises LocalClusterError. Whatever goes wrong, or Ctrl-C, stops the processes that this call started.
        """
        with self.folder.locked(), self._undone_on_failure() as started:
            clock = _Clock(on_step)
            binary = ensure_controlplane()
            parts = self._prepare(binary, images or {})
            clock.done("keys, ports and configuration")
            self._start(parts[:1], started, clock)
            self._start(parts[1:2], started, clock)
            apply_bootstrap(self._api())
            self._start(parts[2:] if node else parts[2:4], started, clock)
            self._wait_until("the default service account", self._has_service_account)
            if node:
                self._wait_until(f"node {NODE_NAME}", self.node_ready)
                clock.done("node is ready")

    def down(self, *, delete: bool = False, on_step: OnStep = lambda step, seconds: None) -> None:
        """Stop every process of the cluster, pods' included; with `delete`, remove its data as well."""
        with self.folder.locked():
            clock = _Clock(on_step)
            for part in reversed(self._parts()):
                if process := self._process(part.name):
                    process.stop(grace=part.grace_seconds)
                    self._record(part.name).unlink(missing_ok=True)
                    clock.done(f"{part.name} stopped")
            if delete:
                self.folder.remove()
                clock.done("data removed")

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; raises CalledProcessError where it fails and `check` is on."""
        return self._run("kubectl", arguments, check=check, stdin=stdin)

    def environment(self) -> dict[str, str]:
        """What a shell needs so that kubectl and helm mean this cluster."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.folder.path / "helm" / "kubectl"),
            "PATH": f"{self.folder.programs}:{os.environ.get('PATH', os.defpath)}",
        }

    def part_pids(self) -> dict[str, int]:
        """The pid of every part that runs."""
        processes = {part.name: self._process(part.name) for part in self._parts()}
        return {name: process.pid for name, process in processes.items() if process}

    def kill(self, part: str) -> None:
        """SIGKILL one part, as a fault does."""
        process = self._process(part)
        if process is None:
            raise LocalClusterError(f"part {part!r} does not run", fix=f"choose one of {', '.join(self.part_pids())}")
        process.send(signal.SIGKILL)
        process.wait(10)

    def node_ready(self) -> bool:
        """Whether the node says that it can run pods."""
        node = self._api().get(f"/api/v1/nodes/{NODE_NAME}")
        conditions = node["status"].get("conditions", []) if node else []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def part_statuses(self) -> list[PartStatus]:
        """How every part is now."""
        statuses = []
        for part in self._parts():
            process = self._process(part.name)
            statuses.append(PartStatus(part.name, process, process is not None and part.healthy()))
        return statuses

    def _prepare(self, binary: Path, images: Mapping[str, Path]) -> tuple[Part, ...]:
        """Write everything that the parts read."""
        self.folder.make()
        network = choose_network(self.folder, rechoose=not self.part_pids())
        ensure_certificates(self.folder.certificates)
        write_kubeconfigs(self.folder, network)
        write_private(self.folder.path / "audit-policy.yaml", AUDIT_POLICY)
        write_private(self.folder.agent_config, _agent_config(self.folder, network, images).model_dump_json(indent=2, by_alias=True))
        for program in PROGRAMS:
            link = self.folder.programs / program
            if not link.is_symlink() or link.readlink() != binary:
                link.unlink(missing_ok=True)
                link.symlink_to(binary)
        return make_parts(self.folder, network, binary)

    def _start(self, parts: Sequence[Part], started: list[Part], clock: _Clock) -> None:
        """Start those of these parts that do not run, all at once, and wait until all of them are healthy."""
        for part in parts:
            if self._process(part.name) is None:
                started.append(part)
                self._spawn(part)
        for part in parts:
            self._wait_until(part.name, part.healthy, part)
        clock.done(" and ".join(part.name for part in parts))

    def _spawn(self, part: Part) -> Process:
        log = self.folder.log(part.name)
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".old.log"))
        # A clean environment: no proxy or client setting of the user's shell reaches the cluster.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder.path), "LANG": "C.UTF-8"}
        return start(
            part.argv, record=self._record(part.name), log=log, environment=environment, folder=self.folder.path
        )

    def _wait_until(self, what: str, ready: Callable[[], bool], part: Part | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            ended = part is not None and self._process(part.name) is None
            if ended or time.monotonic() > deadline:
                why = "ended" if ended else f"was not ready after {START_SECONDS:.0f} s"
                raise LocalClusterError(f"{what} {why}", fix=f"see the logs in {self.folder.path / 'log'}")
            time.sleep(0.05)

    @contextmanager
    def _undone_on_failure(self) -> Iterator[list[Part]]:
        """Stop the parts that were put into the list, if what is done meanwhile fails or is interrupted."""
        started: list[Part] = []
        try:
            yield started
        except BaseException:
            for part in reversed(started):
                if process := self._process(part.name):
                    process.stop(grace=part.grace_seconds)
            raise

    def _has_service_account(self) -> bool:
        return self._api().get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _parts(self) -> tuple[Part, ...]:
        network = load_network(self.folder)
        return make_parts(self.folder, network, self.folder.programs) if network else ()

    def _record(self, part: str) -> Path:
        return self.folder.path / "run" / part

    def _process(self, part: str) -> Process | None:
        return Process.recorded(self._record(part))

    def _api(self) -> AdminAPI:
        network = load_network(self.folder)
        if network is None:
            raise LocalClusterError(f"there is no cluster {self.folder.name!r}", fix="start it: moectl local up")
        certificates = self.folder.certificates
        return AdminAPI(network.apiserver, authority=certificates / "cluster-ca.pem", pair=certificates / "admin.pem")

    def _run(
        self, program: str, arguments: Sequence[str], *, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder.programs / program), *arguments],
            env={**os.environ, **self.environment()},
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
        )


class _Clock:
    """Tells each step with the time since the one before."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._last = time.monotonic()

    def done(self, step: str) -> None:
        now = time.monotonic()
        self._on_step(step, now - self._last)
        self._last = now


def _agent_config(folder: ClusterFolder, network: Network, images: Mapping[str, Path]) -> AgentConfig:
    environments = {**dict.fromkeys(IMAGES, Path(sys.prefix)), **images}
    return AgentConfig(
        node_name=NODE_NAME,
        kubeconfig=folder.kubeconfig("agent"),
        state_dir=folder.path / "agent",
        listen_port=network.agent,
        serving_certificate=folder.certificates / "agent-serving.pem",
        serving_key=folder.certificates / "agent-serving.pem",
        client_ca=folder.certificates / "agent-ca.pem",
        images={name: Image(environment=path.absolute()) for name, path in environments.items()},
        pod_network=network.pods,
        hidden_paths=(folder.certificates,),
    )
