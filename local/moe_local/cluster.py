"""A small Kubernetes cluster of ordinary processes of this machine: starts, repairs and stops it, and reports its state."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from moe_local import chart
from moe_local.api import AdminAPI
from moe_local.binary import Progress, ensure_controlplane, find_controlplane
from moe_local.bootstrap import apply_bootstrap
from moe_local.certificates import NODE_NAME
from moe_local.configuration import configure
from moe_local.containers import stop_containers
from moe_local.errors import LocalClusterError, OperatorNotReadyError
from moe_local.folder import ClusterFolder, choose_network, load_network
from moe_local.given import keep_given
from moe_local.node import node_ready, not_isolated
from moe_local.parts import API_SERVER, CONTROLLER_MANAGER, NODE_AGENT, Part, make_parts
from moe_local.preflight import require_fit
from moe_local.processes import Process, start
from moe_local.status import ClusterStatus, PartStatus

START_SECONDS = 120.0
"""How long a part, the node or the operator may take to get ready on a busy machine."""

STUCK_SECONDS = 10.0
"""How long a part that is already running may take to become healthy before it is started again."""

POLL_SECONDS = 0.05

OnStep = Callable[[str, float], None]
"""Called with each finished step, in words, and the seconds it took."""


class LocalCluster:
    """The cluster of one name. Its folder is its only state, so any process may call any method."""

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
        values: Sequence[Path] | None = None,
        images: Mapping[str, Path] | None = None,
        on_step: OnStep = lambda step, seconds: None,
        progress: Progress = lambda text: None,
    ) -> None:
        """Start what does not run, keep what does, and return when everything is ready.

        `node=False` leaves out the node (then there is an API server with controllers, but nothing runs pods) and
        with it the operator; `operator=False` leaves out the chart. `values` are more files of values for the chart.
        `images` maps images to environments (folders with a bin/) that replace them, in addition to the three images
        of this project, which are replaced by the environment that Python runs in now. `progress` is called during
        long waits.

        Values and images are kept: a later call that leaves them out uses those of the last one. An empty sequence or
        mapping takes them back.

        Raises LocalClusterError. An error, or Ctrl-C, stops the processes that this call started. The exception is
        OperatorNotReadyError: everything keeps running, so that the reason can be found.
        """
        with self.folder.locked(), self._undone_on_failure() as started:
            clock = _Clock(on_step)
            binary = self._find_or_build(progress)
            self.folder.make()
            given = keep_given(self.folder, values, images)
            etcd, apiserver, *others = self._prepare(binary, given.images)
            clock.done("keys, ports and configuration are ready")
            self._start([etcd, apiserver], started, clock)  # the API server itself waits for etcd
            api = self.api()
            apply_bootstrap(api)
            if not node:
                others = [part for part in others if part.name != NODE_AGENT]
            self._start(others, started, clock)
            self._wait_until(
                "the default service account", lambda: _has_service_account(api), part=CONTROLLER_MANAGER
            )
            if node and operator and chart.install_chart(self.folder, api, self._helm, given.values):
                clock.done("chart moe-operator is installed")
            if node:
                self._wait_until(f"node {NODE_NAME}", lambda: self._node_ready(api), part=NODE_AGENT)
                clock.done(f"node {NODE_NAME} is ready")
            if node and operator:
                self._wait_for_operator(api)
                clock.done("the operator is ready")

    def down(self, *, delete: bool = False, on_step: OnStep = lambda step, seconds: None) -> None:
        """Stop every process of the cluster, including those of pods; with `delete`, remove its data, too."""
        with self.folder.locked():
            clock = _Clock(on_step)
            for part in reversed(self._parts()):
                if process := self._process(part.name):
                    process.stop(grace=part.grace_seconds)
                    clock.done(f"{part.name} is stopped")
                if part.name == NODE_AGENT and (left := stop_containers(self.folder.path / "agent", grace=5)):
                    clock.done(f"{left} containers without an agent are stopped")
            if delete:
                self.folder.remove()
                clock.done("its data is removed")

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; raises CalledProcessError if it fails and `check` is True."""
        return self._run("kubectl", arguments, check=check, stdin=stdin)

    def api(self) -> AdminAPI:
        """The API server, as administrator."""
        network = load_network(self.folder)
        if network is None:
            raise LocalClusterError(
                f"there is no cluster {self.folder.name!r}", fix=f"moectl local up --name {self.folder.name}"
            )
        certificates = self.folder.certificates
        return AdminAPI(
            network.apiserver, authority=certificates / "cluster-ca.pem", pair=certificates / "admin.pem"
        )

    def variables(self) -> dict[str, str]:
        """Return the environment variables that make kubectl and helm use this cluster and write nowhere else."""
        caches = self.folder.path / "cache"
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(caches / "kubectl"),
            "HELM_CACHE_HOME": str(caches / "helm"),
            "HELM_CONFIG_HOME": str(caches / "helm-config"),
            "HELM_DATA_HOME": str(caches / "helm-data"),
        }

    def part_pids(self) -> dict[str, int]:
        """Return the pid of every part that runs, by the part's name."""
        processes = {part.name: self._process(part.name) for part in self._parts()}
        return {name: process.pid for name, process in processes.items() if process}

    def kill(self, part: str) -> None:
        """Send SIGKILL to one part, to simulate a fault, and return when it has ended."""
        process = self._process(part)
        if process is None:
            raise LocalClusterError(
                f"part {part!r} does not run", fix=f"these do: {', '.join(self.part_pids())}"
            )
        process.send(signal.SIGKILL)
        process.wait(10)

    def status(self) -> ClusterStatus:
        """Return the current state. Asks every part that runs, and starts nothing."""
        parts = tuple(self._part_status(part) for part in self._parts())
        answers = any(part.name == API_SERVER and part.healthy for part in parts)
        installed = chart.is_installed(self.folder)
        return ClusterStatus(
            parts,
            node_ready=answers and self.node_ready(),
            operator_ready=(answers and self.operator_ready()) if installed else None,
            not_isolated=not_isolated(self.api()) if answers else (),
        )

    def node_ready(self) -> bool:
        """Return whether the node says that it can run pods, and has said so since its agent was started."""
        return self._node_ready(self.api())

    def operator_ready(self) -> bool:
        """Return whether the operator is installed and all of its pods are ready."""
        return chart.operator_ready(self.api())

    def _find_or_build(self, progress: Progress) -> Path:
        found = find_controlplane()
        require_fit(self.folder.path, must_build=found is None)
        return found or ensure_controlplane(progress)

    def _prepare(self, binary: Path, images: Mapping[str, Path]) -> tuple[Part, ...]:
        """Write everything that the parts read, and stop those that run with older configuration."""
        network = choose_network(self.folder, rechoose=not self.part_pids())
        if configure(self.folder, network, binary, images):
            self._end_for_restart(NODE_AGENT)
        parts = make_parts(self.folder, network)
        for part in parts:
            if (process := self._process(part.name)) and process.arguments != part.argv:
                self._end_for_restart(part.name)
        return parts

    def _end_for_restart(self, part: str) -> None:
        """Stop a part by SIGKILL: its data survives that, and a SIGTERM to the agent would end its pods, too."""
        if self._process(part):
            self.kill(part)

    def _start(self, parts: Sequence[Part], started: list[Part], clock: _Clock) -> None:
        """Start those of these parts that do not run or are stuck, all at once, and wait until all are healthy."""
        for part in parts:
            if self._process(part.name) and not self._healthy_within(part, STUCK_SECONDS):
                self._end_for_restart(part.name)
            if self._process(part.name) is None:
                started.append(part)
                self._spawn(part)
        for part in parts:
            self._wait_until(part.name, part.healthy, part=part.name)
        names = [part.name for part in parts]
        clock.done(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} healthy")

    def _spawn(self, part: Part) -> None:
        log = self.folder.log(part.name)
        if log.exists():
            log.replace(log.with_suffix(".old.log"))  # the logs of the last two runs are kept
        # A clean environment: no proxy or client settings of the user's shell reach the cluster.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder.path),
            "LANG": "C.UTF-8",
        }
        start(
            part.argv,
            record=self._record(part.name),
            log=log,
            environment=environment,
            folder=self.folder.path,
        )

    def _wait_until(self, what: str, ready: Callable[[], bool], *, part: str) -> None:
        """Wait for something that this part has to do; raises LocalClusterError with the end of its log."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process(part) is None:
                raise _told_by(self.folder.log(part), f"{part} ended right after it was started")
            if time.monotonic() > deadline:
                raise _told_by(self.folder.log(part), f"{what} was not ready after {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _healthy_within(self, part: Part, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not part.healthy():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _node_ready(self, api: AdminAPI) -> bool:
        agent = self._process(NODE_AGENT)
        return agent is not None and node_ready(api, since=agent.started)

    def _wait_for_operator(self, api: AdminAPI) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not chart.operator_ready(api):
            if time.monotonic() > deadline:
                logs = ("logs", f"deployment/{chart.RELEASE}", "-n", chart.NAMESPACE)
                words = self.kubectl(*logs, "--tail=5", check=False)
                raise OperatorNotReadyError(
                    f"the operator was not ready after {START_SECONDS:.0f} s; the end of its log:\n"
                    f"{words.stdout or words.stderr}",
                    fix=f"the cluster still runs; look at `kubectl {' '.join(logs)}` and `kubectl get events -A`",
                )
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _undone_on_failure(self) -> Iterator[list[Part]]:
        """Stop the parts in the yielded list if the block fails or is interrupted."""
        started: list[Part] = []
        try:
            yield started
        except OperatorNotReadyError:
            raise
        except BaseException:
            for part in reversed(started):
                if process := self._process(part.name):
                    process.stop(grace=part.grace_seconds)
                if part.name == NODE_AGENT:
                    stop_containers(self.folder.path / "agent", grace=5)
            raise

    def _parts(self) -> tuple[Part, ...]:
        network = load_network(self.folder)
        return make_parts(self.folder, network) if network else ()

    def _part_status(self, part: Part) -> PartStatus:
        process = self._process(part.name)
        return PartStatus(part.name, process, process is not None and part.healthy())

    def _record(self, part: str) -> Path:
        return self.folder.path / "run" / part

    def _process(self, part: str) -> Process | None:
        return Process.recorded(self._record(part))

    def _helm(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return self._run("helm", arguments, check=False)

    def _run(
        self, program: str, arguments: Sequence[str], *, check: bool, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder.programs / program), *arguments],
            env={**os.environ, **self.variables()},
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
        )


class _Clock:
    """Calls `on_step` for each step with the seconds since the one before."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._last = time.monotonic()

    def done(self, step: str) -> None:
        now = time.monotonic()
        self._on_step(step, now - self._last)
        self._last = now


def _has_service_account(api: AdminAPI) -> bool:
    """Return whether the service account exists without which pods are refused in a namespace."""
    return api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def _told_by(log: Path, what: str) -> LocalClusterError:
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""
    return LocalClusterError(f"{what}; the end of its log:\n{last}", fix=f"read {log}, then try again")
