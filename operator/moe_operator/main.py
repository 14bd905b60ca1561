"""The operator of ExpertPools, Experts and ExpertRevisions: console script `moe-operator`.

    moe-operator --config FILE [--namespace NAME]... [--metrics-port 8080] [--health-port 8081]

It reads its configuration, waits until it holds the Lease, fills the cache, and then reconciles until it is stopped. In
a cluster it uses its service account, elsewhere KUBECONFIG. SIGTERM ends it cleanly. It may also be killed at any point
without losing anything.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Hashable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kopf
import yaml
from aiohttp import web
from pydantic import ValidationError

from moe_operator.cluster.api_client import ApiClient
from moe_operator.cluster.apply import Applier
from moe_operator.cluster.asking import PodClient
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.connection import Connection, load_connection
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.kinship import remember_former_jobs
from moe_operator.cluster.lease import Lease, LeaseLost
from moe_operator.cluster.listing import Lister, NamespaceBack
from moe_operator.cluster.liveness import Liveness
from moe_operator.cluster.metrics import Metrics
from moe_operator.cluster.overlap import SCOPE, Overlap, StandsAside
from moe_operator.cluster.probes import Probes
from moe_operator.cluster.queue import KeyedQueue
from moe_operator.cluster.reconcile import Reconciler
from moe_operator.cluster.resources import Resource
from moe_operator.cluster.rounds import Rounds
from moe_operator.cluster.sound import identity
from moe_operator.cluster.triggers import concerned
from moe_operator.cluster.workloads import Workloads
from moe_operator.config import OperatorConfig
from moe_operator.handlers import registry_of, settings_of
from moe_operator.logs import set_up_logging
from moe_operator.state import Key, Manifest
from moe_operator.subjects import SUBJECTS

log = logging.getLogger(__name__)

#: For each reconciled kind, the function that returns the name of an object's pool.
_POOL_OF = {subject.kind: subject.pool for subject in SUBJECTS}


#: Seconds that asking pods once more and writing what was observed may take when the operator stops.
_LAST_ROUND = 5.0


class Operator:
    """All parts of the operator, put together."""

    def __init__(self, config: OperatorConfig, connection: Connection) -> None:
        """Create the parts. Nothing is sent yet."""
        self.config = config
        self.connection = connection
        own_namespace = os.environ.get("POD_NAMESPACE", "default")
        self.lease = Lease(
            namespace=own_namespace,
            name=config.lease,
            holder=os.environ.get("POD_NAME") or f"{platform.node()}-{os.getpid()}",
            seconds=config.lease_seconds,
            annotations={SCOPE: ",".join(config.namespaces)},
        )
        self.overlap = Overlap(namespace=own_namespace, lease=config.lease, scope=config.namespaces)
        self.api = ApiClient(connection, may_write=self.lease.check)
        self.lease_api = ApiClient(connection)
        self.cache = Cache()
        self.answers = Answers()
        self.metrics = Metrics()
        self.queue: KeyedQueue[Key] = KeyedQueue(self._lane_of)
        self.pods = PodClient()
        self.probes = Probes(self.cache, self.answers, self.pods, self._news)
        applier = Applier(self.api, self.cache)
        self.rounds = Rounds(self.cache, self.answers, self.pods, self.api, applier, self._bucket_ended)
        self.lister = Lister(self.api, self.cache, config.namespaces, self.metrics.sweep_repairs)
        self.workloads = Workloads(self.api, self.cache, self.answers, self._news)
        self.reconciler = Reconciler(
            cache=self.cache,
            queue=self.queue,
            answers=self.answers,
            applier=applier,
            config=config,
            metrics=self.metrics,
            subjects=SUBJECTS,
        )
        self.liveness = Liveness(
            oldest_seconds=self.queue.oldest_seconds,
            sweep_age=self.lister.sweep_age,
            longest_sweep_age=3 * config.sweep_seconds + 60,
            waits_for=lambda: self.lease.waits or self.overlap.waits,
        )
        self.metrics.refresh = self._refresh_metrics
        self._last_event = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Hold the Lease and work until cancelled; set ``stop`` when kopf gets a signal to end. Raises LeaseLost."""
        await self.lease.acquire(self.lease_api)
        try:
            await _first_of(self._work(stop), self.lease.keep(self.lease_api))
        finally:
            with contextlib.suppress(TimeoutError, LeaseLost):
                async with asyncio.timeout(_LAST_ROUND):
                    await self.rounds.finish()
            await self.lease.release(self.lease_api)

    async def aclose(self) -> None:
        """Close all connections."""
        for part in (self.api, self.lease_api, self.pods):
            await part.close()

    async def _start(self) -> None:
        """Fill the cache and ask running pods once. Only then is anything queued."""
        started = time.monotonic()
        await self.lister.prime()
        remember_former_jobs(self.cache)
        await asyncio.gather(self.probes.ask_progress(), self.probes.ask_policies())
        self.cache.listen(self._changed)
        for subject in SUBJECTS:
            # Pool by pool, so that the models of a pool's Experts are still held when the next of them is looked at.
            for item in sorted(self.cache.all(subject.kind), key=subject.pool):
                self.queue.add(Key(subject.kind, item["metadata"]["namespace"], item["metadata"]["name"]))
        self.liveness.ready = True
        log.info("the cache was filled in %.2f s", time.monotonic() - started)

    async def _work(self, stop: asyncio.Event) -> None:
        """Run the watches, the workers, the sweep and the probes, until one of them ends. Raises StandsAside."""
        await self.overlap.clear(self.lease_api)
        await self._start()
        watching = kopf.operator(
            registry=registry_of(self.connection, self._observe, stop.set),
            settings=settings_of(),
            standalone=True,
            clusterwide=not self.config.namespaces,
            namespaces=self.config.namespaces,
        )
        workers = [self.reconciler.work() for _ in range(self.config.workers)]
        asking = [
            self.overlap.watch(self.lease_api),
            self.probes.run(),
            self.rounds.run(),
            *([self.workloads.run()] if self.config.queue else []),
        ]
        await _first_of(watching, *workers, self.lister.sweep(self.config.sweep_seconds), *asking)

    def _observe(self, resource: Resource, manifest: dict[str, Any], deleted: bool) -> None:
        """Put the object of a watch event into the cache."""
        self._last_event = time.monotonic()
        manifest |= {"apiVersion": resource.api_version, "kind": resource.kind}
        with confined(manifest, "reading it"):
            if deleted:
                identity(manifest)
                metadata = manifest["metadata"]
                place = resource.kind, metadata["namespace"], metadata["name"]
                self.cache.remove(*place, metadata["uid"], int(metadata["resourceVersion"]))
            else:
                self.cache.put(manifest)

    def _changed(self, old: Manifest | None, new: Manifest | None) -> None:
        """Queue the objects that a change in the cache concerns."""
        first, then = concerned(old, new, self.cache, _POOL_OF)
        for key in first:
            self.queue.add(key, ahead=True)
        for key in then:
            self.queue.add(key)

    def _news(self, about: Manifest) -> None:
        """Queue the objects that the new answer of a pod concerns; the object itself has not changed."""
        for key in concerned(about, about, self.cache, _POOL_OF).first:
            self.queue.add(key)

    def _bucket_ended(self, pool: Manifest) -> None:
        """Queue a pool and its Experts, whose analysis may have changed."""
        namespace, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
        self.queue.add(Key("ExpertPool", namespace, name))
        for expert in self.cache.of_pool("Expert", namespace, name):
            self.queue.add(Key("Expert", namespace, expert["metadata"]["name"]))

    def _lane_of(self, key: Key) -> Hashable:
        """Return the queue's lane for a key: its pool, whose decisions are made one after the other."""
        manifest = self.cache.get(key.kind, key.namespace, key.name)
        return (key.namespace, _POOL_OF[key.kind](manifest) if manifest is not None else key.name)

    def _refresh_metrics(self) -> None:
        self.metrics.queue_depth.set(len(self.queue))
        self.metrics.queue_oldest.set(self.queue.oldest_seconds())
        self.metrics.event_age.set(time.monotonic() - self._last_event)
        self.metrics.count(self.cache)


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Run coroutines until one of them ends, cancel the others, and raise what the first one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():  # When a signal ends kopf, it cancels the tasks that it finds.
            task.result()


async def serve(config: OperatorConfig, metrics_port: int, health_port: int) -> None:
    """Run the operator and its HTTP endpoints until SIGTERM or SIGINT. Raises LeaseLost."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    operator = Operator(config, load_connection())
    async with (
        contextlib.aclosing(operator),
        _listening(operator.metrics.application(), metrics_port),
        _listening(operator.liveness.application(), health_port),
    ):
        log.info(
            "moe-operator %s uses the API server %s", version("moe-operator"), operator.connection.server
        )
        await _first_of(operator.run(stop), stop.wait())


@contextlib.asynccontextmanager
async def _listening(app: web.Application, port: int) -> AsyncIterator[None]:
    """Serve a web application on the pod's address, or on 127.0.0.1 outside a cluster."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, os.environ.get("POD_IP") or "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


def read_config(path: Path, namespaces: list[str]) -> OperatorConfig:
    """Return the configuration of a file; ``namespaces`` replaces those in it, if there are any.

    Raises OSError, yaml.YAMLError or ValidationError.
    """
    config = OperatorConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return config.model_copy(update={"namespaces": tuple(namespaces)}) if namespaces else config


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="moe-operator", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("MOE_OPERATOR_CONFIG"),
        help="YAML file with the operator's configuration; default: the value of MOE_OPERATOR_CONFIG",
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        help="watch only this namespace; may be given several times",
    )
    parser.add_argument("--metrics-port", type=int, default=8080, help="port of /metrics; default: 8080")
    parser.add_argument(
        "--health-port", type=int, default=8081, help="port of /healthz and /readyz; default: 8081"
    )
    parser.add_argument(
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="least severe messages that are logged; default: INFO",
    )
    arguments = parser.parse_args()
    if arguments.config is None:
        parser.error("--config is missing, and MOE_OPERATOR_CONFIG is not set: name the configuration file")
    return arguments


def main() -> None:
    """Run until SIGTERM or SIGINT. Exits with status 1 if it has to be started again, or if the configuration is wrong."""
    arguments = _arguments()
    set_up_logging(arguments.log_level)
    try:
        config = read_config(arguments.config, arguments.namespace)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        sys.exit(f"moe-operator: the configuration {arguments.config} cannot be used: {error}")
    try:
        asyncio.run(serve(config, arguments.metrics_port, arguments.health_port))
    except (LeaseLost, NamespaceBack, StandsAside) as error:
        log.error("%s: this process ends", error)
        sys.exit(1)
