"""The whole agent: gives every pod of the node a worker, and tells workers what changes around them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from moe_local.agent.admission import refusal
from moe_local.agent.api_client import JSON, APIClient, APIError
from moe_local.agent.config import AgentConfig
from moe_local.agent.events import Events
from moe_local.agent.machine import Isolation, not_isolated, try_out
from moe_local.agent.names import Addresses, Member, Names, Service, cluster_names
from moe_local.agent.node import Node, measured_capacity
from moe_local.agent.pod import Pod
from moe_local.agent.processes import Running, attempts, find, read_record
from moe_local.agent.provisioner import Provisioner
from moe_local.agent.server import LogServer
from moe_local.agent.state import End
from moe_local.agent.worker import NodeContext, PodWorker

log = logging.getLogger(__name__)

REGISTER_RETRY_SECONDS = 0.5
LEFTOVER_GRACE = 5.0
FAULT_SECONDS = 1.0

Part = Callable[[], Awaitable[None]]
"""A task of the agent that runs as long as the agent does."""


class Agent:
    """One node. `run` returns after `stop` was called and its pods have ended."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._services: dict[str, Service] = {}
        self._addresses = Addresses(config.pod_network)
        #: Address that each pod holds until it has ended, by the pod's uid.
        self._held: dict[str, str] = {}
        self._names_stale = asyncio.Event()
        self._stopped = asyncio.Event()
        self._capacity: dict[str, str] = {}

    def stop(self) -> None:
        """Stop all pods' processes gracefully and let `run` return."""
        self._stopped.set()

    async def run(self) -> None:
        """Be the node. Raises OSError if port or state folder cannot be used, ValueError for a bad kubeconfig."""
        self._config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config.state_dir.chmod(0o700)
        self._capacity = measured_capacity(self._config.state_dir) | self._config.capacity
        isolation = await self._try_isolation()
        isolation.cgroups.sweep()
        async with APIClient(self._config.kubeconfig) as client, _probing_session() as session:
            self._context = self._make_context(client, session, isolation)
            node = Node(self._config, client, capacity=self._capacity, isolation=isolation)
            server = LogServer(self._config, self)
            await server.start()
            background = [asyncio.create_task(_for_ever(part)) for part in self._parts(client, node)]
            await self._stopped.wait()
            await self._drain()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await server.stop()

    def _make_context(
        self, client: APIClient, session: aiohttp.ClientSession, isolation: Isolation
    ) -> NodeContext:
        address = urlsplit(client.server)
        return NodeContext(
            config=self._config,
            client=client,
            events=Events(client, self._config.node_name),
            session=session,
            isolation=isolation,
            api_host=address.hostname or "127.0.0.1",
            api_port=address.port or 443,
            capacity=self._capacity,
            names=self._names_for,
            names_changed=self._names_stale.set,
        )

    async def _try_isolation(self) -> Isolation:
        """Return how pods are isolated. Raises OSError if namespaces are required but impossible."""
        if self._config.isolation == "none":
            return not_isolated("the agent's configuration says so")
        found = await asyncio.to_thread(try_out)
        if not found.kind and self._config.isolation == "mount-namespace":
            raise OSError(
                f"isolation: mount-namespace is configured, but this machine does not allow it: {found.why}"
            )
        return found

    def _parts(self, client: APIClient, node: Node) -> list[Part]:
        provisioner = Provisioner(client, self._config.state_dir / "volumes", self._config.node_name)
        return [
            partial(self._register_then_beat, node),
            partial(self._watch_pods, client),
            partial(self._watch_services, client),
            partial(self._watch_config_maps, client),
            provisioner.watch_claims,
            provisioner.watch_volumes,
            self._write_names,
        ]

    async def _register_then_beat(self, node: Node) -> None:
        while True:
            try:
                await node.register()
                break
            except APIError as error:
                log.info("waiting for the API server: %s", error)
                await asyncio.sleep(REGISTER_RETRY_SECONDS)
        await node.heartbeat()

    # Pods

    async def _watch_pods(self, client: APIClient) -> None:
        selector = f"spec.nodeName={self._config.node_name}"
        async for event in client.watch("/api/v1/pods", fieldSelector=selector):
            if event.kind == "listed":
                await self._remove_all_but({item["metadata"]["uid"] for item in event.objects})
                self._claim_addresses(event.objects)
            for item in event.objects:
                self._take(item, gone=event.kind == "deleted")

    def _claim_addresses(self, items: Iterable[JSON]) -> None:
        """Let pods keep their addresses over a restart of the agent, before new pods can get them."""
        for item in items:
            uid = item["metadata"]["uid"]
            record = read_record(self._folder / uid / "pod.json")
            if not record or uid in self._workers:
                continue
            if self._addresses.claim(record["address"]):
                self._held[uid] = record["address"]
            else:
                log.warning("pod %s had address %s, which is not free", uid, record["address"])

    @property
    def _folder(self) -> Path:
        return self._config.state_dir / "pods"

    def _take(self, item: JSON, *, gone: bool) -> None:
        """Give a pod, as it is now, to its worker."""
        worker = self._workers.get(item["metadata"]["uid"])
        if gone:
            if worker:
                worker.remove()
            return
        try:
            pod = Pod.model_validate(item)
        except ValidationError as error:
            log.error("pod %s cannot be parsed: %s", item["metadata"]["name"], error)
            return
        if worker:
            worker.update(pod)
        elif not self._stopped.is_set():
            worker = self._start_worker(pod)
        if worker and pod.ended and not worker.holds_resources:
            self._release(pod.uid)

    def _release(self, uid: str) -> None:
        """Give back the address of a pod that has ended. Its object may stay for long, and still names the address."""
        if address := self._held.pop(uid, ""):
            self._addresses.give_back(address)

    def _start_worker(self, pod: Pod) -> PodWorker:
        record = read_record(self._folder / pod.uid / "pod.json")
        refused = None if record or pod.ended else self._admit(pod)
        try:
            address = str(record["address"]) if record else self._addresses.take()
            if not record:
                self._held[pod.uid] = address
        except RuntimeError as error:
            address, refused = "", End(0, "OutOfpods", str(error), "Failed")
        worker = PodWorker(pod, address, self._context, refused)
        self._workers[pod.uid] = worker
        self._tasks[pod.uid] = asyncio.create_task(self._work_on(worker))
        return worker

    async def _work_on(self, worker: PodWorker) -> None:
        await worker.run()
        del self._workers[worker.pod.uid], self._tasks[worker.pod.uid]
        self._release(worker.pod.uid)
        self._names_stale.set()

    def _admit(self, pod: Pod) -> End | None:
        """Return why the node has no room for a pod that the scheduler has sent; None if it has."""
        others = [w.pod for w in self._workers.values() if w.holds_resources]
        return refusal(pod, others, self._capacity)

    async def _remove_all_but(self, uids: set[str]) -> None:
        """Tell workers of pods that were deleted unnoticed, and end such pods that have no worker."""
        for uid, worker in self._workers.items():
            if uid not in uids:
                worker.remove()
        if not self._folder.is_dir():
            return
        left = [f for f in self._folder.iterdir() if f.name not in uids and f.name not in self._workers]
        await asyncio.gather(*(end_leftover(folder) for folder in left))

    async def _drain(self) -> None:
        for worker in list(self._workers.values()):
            worker.drain(self._config.drain_seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.drain_seconds + 1.5
        while loop.time() < deadline and any(not worker.drained for worker in self._workers.values()):
            await asyncio.sleep(0.02)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for worker in self._workers.values():
            worker.leave()

    # What pods depend on

    async def _watch_services(self, client: APIClient) -> None:
        async for event in client.watch("/api/v1/services"):
            if event.kind == "listed":
                self._services.clear()
            for item in event.objects:
                if event.kind == "deleted":
                    self._services.pop(item["metadata"]["uid"], None)
                else:
                    self._services[item["metadata"]["uid"]] = Service.parse(item)
            self._names_stale.set()

    async def _watch_config_maps(self, client: APIClient) -> None:
        async for event in client.watch("/api/v1/configmaps"):
            for item in event.objects:
                meta = item["metadata"]
                for worker in self._workers.values():
                    worker.source_changed("configmaps", meta["namespace"], meta["name"])

    def _names_for(self, reader: Member) -> Names:
        members = [w.member() for w in self._workers.values() if w.state.address and not w.pod.ended]
        return cluster_names(self._services.values(), members, reader=reader)

    async def _write_names(self) -> None:
        """Keep every pod's hosts file up to date; changes that arrive together are written together."""
        while True:
            await self._names_stale.wait()
            self._names_stale.clear()
            for worker in list(self._workers.values()):
                if worker.state.sandboxed and not worker.at_rest:
                    worker.write_hosts()
            await asyncio.sleep(0.02)

    # Logs (server.LogSource)

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        found = [w for w in self._workers.values() if w.pod.key == (namespace, name)]
        return found[-1] if found else None

    def container_folder(self, namespace: str, pod: str, container: str) -> Path | None:
        """Return the folder with the attempts of a container."""
        worker = self._find(namespace, pod)
        known = worker is not None and container in worker.runs
        return worker.folder / "containers" / container if worker and known else None

    def is_running(self, namespace: str, pod: str, container: str, attempt: int) -> bool:
        """Return whether that attempt still runs."""
        worker = self._find(namespace, pod)
        state = worker.runs[container].state if worker else None
        return state is not None and state.running and state.attempt == attempt


async def _for_ever(part: Part) -> None:
    """Keep a task of the agent running: after any error it lists its objects again and continues."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("an error in the agent; this task of it starts again")
            await asyncio.sleep(FAULT_SECONDS)


def _probing_session() -> aiohttp.ClientSession:
    """Return a session for probes. Like a kubelet's, each makes a new connection and keeps no cookies."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), cookie_jar=aiohttp.DummyCookieJar()
    )


async def end_leftover(folder: Path) -> None:
    """End what still runs of a pod whose object is gone, and then remove its folder."""
    containers = folder / "containers"
    for container in containers.iterdir() if containers.is_dir() else ():
        for number in attempts(container):
            found = await find(container / str(number))
            if isinstance(found, Running):
                found.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(found.ended(), LEFTOVER_GRACE)
                found.kill()
                await found.ended()
    shutil.rmtree(folder, ignore_errors=True)
