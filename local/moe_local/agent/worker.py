"""One pod on this node, from the moment it is bound to the moment its object is gone.

A worker sleeps until something happens (the object changed, a container ended, a probe's result changed, a wait is
over), asks `lifecycle.decide` what to do, does it, and tells the API server. Everything that it needs to continue after
it was killed is in the pod's folder (attempts of containers) and in the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from moe_local.agent import environment, sandbox, volumes
from moe_local.agent.api_client import JSON, APIClient, APIError, ConflictError, NotFoundError
from moe_local.agent.config import AgentConfig
from moe_local.agent.container import ContainerRun
from moe_local.agent.environment import ConfigurationError, Facts, Kind
from moe_local.agent.events import Events
from moe_local.agent.launch import Launch
from moe_local.agent.lifecycle import decide
from moe_local.agent.machine import Isolation
from moe_local.agent.names import Member, Names, hosts_file
from moe_local.agent.pod import Container, Pod
from moe_local.agent.probes import Prober
from moe_local.agent.processes import read_record, write_record
from moe_local.agent.state import Decision, End, PodState, Problem
from moe_local.agent.status import NODE_ADDRESS, condition_value, pod_status

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 5.0
SECRETS_SECONDS = 20.0
"""Seconds between two readings of mounted Secrets; only a watch of all Secrets would show changes at once."""
NODE_SHUTDOWN = "Pod was terminated in response to node shutdown."
LOST = "A container was lost when this machine or its supervisor was stopped."


@dataclass(frozen=True)
class NodeContext:
    """What all workers of the node share."""

    config: AgentConfig
    client: APIClient
    events: Events
    session: aiohttp.ClientSession
    isolation: Isolation
    api_host: str
    api_port: int
    capacity: Mapping[str, str]
    names: Callable[[Member], Names]
    names_changed: Callable[[], None]


class PodWorker:
    """Runs one pod. The agent calls `update`, `remove`, `source_changed` and `drain`."""

    def __init__(self, pod: Pod, address: str, node: NodeContext, refusal: End | None = None) -> None:
        self.pod = pod
        self.folder = pod_folder(node.config.state_dir, pod.uid)
        self._node = node
        self._facts = Facts(address, NODE_ADDRESS, node.api_host, node.api_port, node.capacity)
        self._volumes = volumes.PodVolumes(
            node.client, self.folder / "volumes", node.config.state_dir / "volumes", node.isolation.owner
        )
        self._prober = Prober(node.session, address)
        self.runs = {
            c.name: ContainerRun(
                c,
                folder=self.folder / "containers" / c.name,
                pod_uid=pod.uid,
                back_off=node.config.back_off,
                grace=pod.spec.termination_grace_period_seconds,
                changed=self._on_change,
                tell=self._tell,
            )
            for c in pod.all_containers()
        }
        self.state = PodState({name: run.state for name, run in self.runs.items()}, refusal, address=address)
        self.state.admitted_at = time.time()
        self._published: JSON | None = None
        self._status: JSON = pod.status
        self._removed = False
        self._stale_volumes = False
        self._restored = False
        self._starting = False
        self._told_rest = False
        self._retry = RETRY_SECONDS
        self._retry_at: float | None = None
        self._secrets_at = time.time() + SECRETS_SECONDS
        self._awake = asyncio.Event()

    # Called by the agent

    def update(self, pod: Pod) -> None:
        """The object has changed."""
        if (pod.metadata.labels, pod.metadata.annotations) != (
            self.pod.metadata.labels,
            self.pod.metadata.annotations,
        ):
            self._stale_volumes = True
        self.pod = pod
        ready = condition_value(self._published or {}, "Ready")
        if self._published is not None and condition_value(pod.status, "Ready") != ready:
            self._published = None  # another program, such as the node controller, has written it
        self._on_change()

    def remove(self) -> None:
        """The object is gone."""
        self._removed = True
        self._on_change()

    def source_changed(self, kind: Kind, namespace: str, name: str) -> None:
        """A ConfigMap has changed."""
        if namespace == self.pod.metadata.namespace and (kind, name) in volumes.references(self.pod):
            self._stale_volumes = True
            self._awake.set()

    def drain(self, seconds: float) -> None:
        """Stop the containers because the agent ends. Pods that may restart do so when the agent returns."""
        if self.state.end:
            for run in self.runs.values():
                run.kill_within(seconds)
            return
        grace = min(seconds, self.pod.spec.termination_grace_period_seconds)
        if self.pod.spec.restart_policy == "Never":
            self._end_with(End(grace, "Terminated", NODE_SHUTDOWN, "Failed", disrupted=True))
        else:
            self.state.end = End(grace, restarts_later=True)
        self._on_change()

    @property
    def at_rest(self) -> bool:
        """Return whether none of its containers runs."""
        return not self._starting and not any(run.state.running for run in self.runs.values())

    @property
    def drained(self) -> bool:
        """Return whether none of its containers runs and the API server knows that."""
        return self.at_rest and self._told_rest

    @property
    def holds_resources(self) -> bool:
        """Return whether its requests count against the node's capacity."""
        return not (self.at_rest and (self.pod.ended or self._removed or self.state.end))

    def member(self) -> Member:
        """How other pods see it."""
        serving = [self.runs[c.name].state for c in self.pod.spec.containers]
        ending = (
            self.state.end is not None or self.pod.metadata.deletion_timestamp is not None or self._removed
        )
        return Member(
            self.pod.uid,
            self.pod.metadata.namespace,
            self.pod.hostname,
            self.pod.spec.subdomain,
            self.state.address,
            self.pod.metadata.labels,
            ready=not ending and all(s.running and s.ready for s in serving),
        )

    def write_hosts(self) -> None:
        """Update the pod's hosts file, in place, because containers have the file itself mounted."""
        if not self.folder.is_dir():
            return
        member = self.member()
        text = hosts_file(member, self._node.names(member), api_host=self._node.api_host)
        path = self.folder / "hosts"
        try:
            if not path.exists() or path.read_text() != text:
                with open(path, "r+" if path.exists() else "w") as file:
                    file.write(text)
                    file.truncate()
        except OSError as error:
            log.warning("%s: cannot write %s: %s", self._name, path, error)

    # The loop

    async def run(self) -> None:
        """Work until the object is gone and nothing of the pod is left."""
        while not (self._removed and self.at_rest and self._restored):
            self._awake.clear()
            wait: float | None = None
            try:
                if not self._restored:
                    await self._restore()
                wait = await self._step()
            except (APIError, OSError) as error:
                log.warning("%s: %s", self._name, error)
                wait = self._next_retry()
            except Exception:  # an error with one pod must not affect the others
                log.exception("%s: an error in the agent; trying again", self._name)
                wait = self._next_retry()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), wait)
        for run in self.runs.values():
            run.cancel()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def leave(self) -> None:
        """Stop watching, and leave what runs alone."""
        for run in self.runs.values():
            run.cancel()

    async def _restore(self) -> None:
        """Take over what an earlier run of the agent has left of this pod."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "pod.json").exists():
            record = {"namespace": self.pod.key[0], "name": self.pod.key[1], "address": self.state.address}
            write_record(self.folder / "pod.json", record)
        ended = read_record(self.folder / "end.json")
        if ended and not self.state.end:
            self.state.end = End(**ended)
        for run in self.runs.values():
            await run.adopt(self._prober)
        if started := self.pod.status.get("startTime"):
            self.state.admitted_at = datetime.fromisoformat(started).timestamp()
        self._restored = True

    async def _step(self) -> float | None:
        """Do what has to be done now; return for how many seconds to sleep at most."""
        self._notice_end()
        decision = decide(self.pod, self.state, time.time())
        if (decision.start or not self.at_rest) and not self.state.sandboxed:
            await self._prepare(decision.start)
        if decision.start and self.state.sandboxed:
            await self._start(decision.start)
            decision = decide(self.pod, self.state, time.time())
        elif self._stale_volumes and self.state.sandboxed and not self.at_rest:
            await self._refresh_volumes()
        for name in decision.stop:
            self.runs[name].stop(self._grace(), f"Stopping container {name}")
        if self.state.end:
            for run in self.runs.values():
                if run.state.stopping:
                    run.kill_within(self._grace())
        await self._publish(decision)
        self._told_rest = self.state.end is not None and self.at_rest
        if decision.final and self.pod.metadata.deletion_timestamp:
            await self._node.client.delete(self.pod.path, uid=self.pod.uid, grace=0)
        return 0.0 if decision.start and self.state.sandboxed else self._sleep(decision)

    def _sleep(self, decision: Decision) -> float | None:
        """Return the seconds until the next restart of a container, renewal of a token or reading of a Secret."""
        now = time.time()
        moments = [decision.look_again, self._retry_at]
        if not self.at_rest:
            secrets = any(kind == "secrets" for kind, _ in volumes.references(self.pod))
            refresh = [self._volumes.renew_at, self._secrets_at if secrets else None]
            self._stale_volumes |= any(moment is not None and moment <= now for moment in refresh)
            moments += refresh
        known = [moment for moment in moments if moment is not None]
        return max(0.01, min(known) - now) if known else None

    def _next_retry(self) -> float:
        wait = self._retry
        self._retry = min(wait * 2, MOST_RETRY_SECONDS)
        return wait

    def _notice_end(self) -> None:
        """Note that the pod has to end, and why. The first reason stays, but a deletion may shorten the grace period."""
        meta, spec = self.pod.metadata, self.pod.spec
        now = time.time()
        if self._removed or meta.deletion_timestamp:
            grace = meta.deletion_grace_period_seconds
            wanted = spec.termination_grace_period_seconds if grace is None else grace
            wanted = min(wanted, 2.0) if self._removed else wanted
            if self.state.end is None or wanted < self.state.end.grace:
                before = self.state.end or End(wanted)
                self.state.end = End(wanted, before.reason, before.message, before.phase, before.disrupted)
        elif self.state.end:
            return
        elif self.pod.ended:
            self.state.end = End(spec.termination_grace_period_seconds)
        elif spec.restart_policy == "Never" and any(
            r.state.exit and r.state.exit.lost for r in self.runs.values()
        ):
            self._end_with(
                End(spec.termination_grace_period_seconds, "Terminated", LOST, "Failed", disrupted=True)
            )
        elif spec.active_deadline_seconds and now >= self.state.admitted_at + spec.active_deadline_seconds:
            text = "Pod was active on the node longer than the specified deadline"
            self._end_with(End(spec.termination_grace_period_seconds, "DeadlineExceeded", text, "Failed"))

    def _end_with(self, end: End) -> None:
        """End the pod for a reason that has to be remembered if the agent is killed."""
        self.state.end = end
        with contextlib.suppress(OSError):
            write_record(self.folder / "end.json", asdict(end))

    def _grace(self) -> float:
        return self.state.end.grace if self.state.end else self.pod.spec.termination_grace_period_seconds

    # Doing

    async def _prepare(self, waiting: tuple[str, ...]) -> None:
        """Create the pod's volumes and hosts file; if that fails, note it on the containers that wait for them."""
        try:
            await self._volumes.prepare(self.pod, self._facts)
            (self.folder / "root").mkdir(exist_ok=True)
            self.state.sandboxed, self._retry_at = True, None
        except (ConfigurationError, APIError, OSError) as error:
            for name in waiting:
                self._cannot_start(name, error)
            if not waiting:  # what is already running keeps the volumes it has
                self._retry_at = time.time() + self._next_retry()

    async def _start(self, names: tuple[str, ...]) -> None:
        """Start containers; one that cannot be started gets a problem and is tried again later."""
        self.write_hosts()
        for name in names:
            self._starting = True
            try:
                launch = await self._launch(self.runs[name].container)
                await self.runs[name].begin(launch, self._prober)
                self._retry = RETRY_SECONDS
            except (ConfigurationError, APIError, OSError) as error:
                self._cannot_start(name, error)
            finally:
                self._starting = False

    def _cannot_start(self, name: str, error: Exception) -> None:
        permanent = isinstance(error, sandbox.ImageError)
        reason = "ErrImageNeverPull" if permanent else "CreateContainerConfigError"
        retry_at = time.time() + self._next_retry()
        self.runs[name].set_problem(Problem(reason, str(error), permanent), retry_at)
        self._tell("Warning", "Failed" if self.state.sandboxed else "FailedMount", f"Error: {error}")

    async def _launch(self, container: Container) -> Launch:
        """Return what to start a container with. Raises ConfigurationError or a subclass, APIError, or OSError."""
        run = self.runs[container.name]
        image = sandbox.find_image(self._node.config.images, container.image)
        wanted = environment.references(container)
        sources = await volumes.fetch(self._node.client, self.pod.metadata.namespace, wanted)
        variables = environment.resolve(self.pod, container, self._facts, sources)
        mounts = self._volumes.mounts(container, variables)
        place = sandbox.Place(self.folder, run.next_folder)
        place.make(self._node.isolation.owner)
        if self._node.isolation.kind:
            return sandbox.isolated(
                self.pod,
                container,
                image=image,
                variables=variables,
                mounts=mounts,
                place=place,
                config=self._node.config,
                isolation=self._node.isolation,
            )
        peers = {name: found[0] for name, found in self._node.names(self.member()).items()}
        return sandbox.rewritten(
            self.pod,
            container,
            image=image,
            variables=variables,
            mounts=mounts,
            peers=peers,
            place=place,
            server=self._node.client.server,
            isolation=self._node.isolation,
        )

    async def _refresh_volumes(self) -> None:
        self._stale_volumes = False
        self._secrets_at = time.time() + SECRETS_SECONDS
        try:
            await self._volumes.refresh(self.pod, self._facts)
        except ConfigurationError as error:
            self._tell("Warning", "FailedMount", str(error))  # what was there before is kept
        except (APIError, OSError):
            self._stale_volumes = True
            raise

    async def _publish(self, decision: Decision) -> None:
        """Update the status in the API server if it differs. A final phase is never changed again."""
        if self._removed or self.pod.ended:
            return
        known = self.pod.model_copy(update={"status": self._status})
        status = pod_status(known, self.state, decision, time.time())
        if status == self._published:
            return
        body = {"metadata": {"uid": self.pod.uid}, "status": status}
        try:
            await self._node.client.patch(f"{self.pod.path}/status", body)
        except (NotFoundError, ConflictError):
            self.remove()
            return
        self._published, self._status = status, status
        if decision.final:
            self._node.names_changed()

    def _on_change(self) -> None:
        self._awake.set()
        self._node.names_changed()

    def _tell(self, kind: str, reason: str, message: str) -> None:
        self._node.events.tell(self.pod, "Warning" if kind == "Warning" else "Normal", reason, message)

    @property
    def _name(self) -> str:
        return "/".join(self.pod.key)


def pod_folder(state_dir: Path, uid: str) -> Path:
    """Return the folder with everything of one pod."""
    return state_dir / "pods" / uid
