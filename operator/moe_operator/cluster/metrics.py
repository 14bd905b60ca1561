"""Prometheus metrics of the operator. Labels have few values: kinds, errors and phases, never names of objects."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from moe_operator.cluster.cache import Cache
from moe_operator.state import Manifest


class Metrics:
    """All metrics, in a registry of their own. ``refresh`` is called before they are read."""

    def __init__(self) -> None:
        self.refresh: Callable[[], None] = lambda: None
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "moe_operator_reconcile_seconds",
            "Seconds from taking a key off the queue to the end of its last write.",
            ["kind"],
            registry=self.registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.reconcile_errors = Counter(
            "moe_operator_reconcile_errors_total",
            "Number of times that reconciling a key failed, after which it was tried again with a delay.",
            ["kind", "error"],
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "moe_operator_queue_depth", "Number of keys that wait for a worker.", registry=self.registry
        )
        self.queue_oldest = Gauge(
            "moe_operator_queue_oldest_seconds",
            "Seconds that the oldest key has waited or been under way; 0 if there is none.",
            registry=self.registry,
        )
        self.event_age = Gauge(
            "moe_operator_last_event_age_seconds",
            "Seconds since the last watch event.",
            registry=self.registry,
        )
        self.sweep_repairs = Counter(
            "moe_operator_sweep_repairs_total",
            "Number of objects that a sweep found to differ from the cache, because a watch missed a change.",
            registry=self.registry,
        )
        self._phases = Gauge(
            "moe_operator_experts", "Number of Experts by phase.", ["phase"], registry=self.registry
        )

        self._stalled = Gauge(
            "moe_operator_experts_stalled",
            "Number of Experts whose condition Stalled is true, including those that still serve.",
            registry=self.registry,
        )

    def count_phases(self, cache: Cache) -> None:
        """Count Experts by phase. A phase that no Expert is in any more gets 0."""
        tally = Tally(_phases(cache))
        self._stalled.set(sum(_is_stalled(expert) for expert in cache.all("Expert")))
        seen = {sample.labels["phase"] for metric in self._phases.collect() for sample in metric.samples}
        for phase in seen | tally.keys():
            self._phases.labels(phase).set(tally[phase])

    def application(self) -> web.Application:
        """Return the web application with /metrics."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._exposition)])
        return app

    async def _exposition(self, _: web.Request) -> web.Response:
        self.refresh()
        text = generate_latest(self.registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})


def _is_stalled(expert: Manifest) -> bool:
    conditions = (expert.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Stalled" and item["status"] == "True" for item in conditions)


def _phases(cache: Cache) -> Iterable[str]:
    for expert in cache.all("Expert"):
        yield str((expert.get("status") or {}).get("phase") or "Pending")
