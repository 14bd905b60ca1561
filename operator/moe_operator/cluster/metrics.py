"""Prometheus metrics of the operator. Labels have few values: kinds, errors and phases, never names of objects."""

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from typing import Any

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

        self._attention = Gauge(
            "moe_operator_experts_needing_attention",
            "Number of Experts of which a proposal or a condition asks somebody to act.",
            registry=self.registry,
        )
        self._drifted = Gauge(
            "moe_operator_experts_drifted",
            "Number of Experts whose condition Drifted is true.",
            registry=self.registry,
        )
        self._trends = Gauge(
            "moe_operator_experts_trend",
            "Number of Experts with traffic by the trend of how fast answers appear.",
            ["trend"],
            registry=self.registry,
        )
        self._proposals = Gauge(
            "moe_operator_proposals",
            "Number of proposals by act and phase.",
            ["act", "phase"],
            registry=self.registry,
        )
        self._held_back = Gauge(
            "moe_operator_proposals_held_back",
            "Number of proposals, of all pools there are, that were not made because the mode of their act was Off.",
            ["act"],
            registry=self.registry,
        )

    def count(self, cache: Cache) -> None:
        """Count Experts and proposals by what their statuses say."""
        experts = [_status_of(expert) for expert in cache.all("Expert")]
        self._stalled.set(sum(_holds(status, "Stalled") for status in experts))
        self._drifted.set(sum(_holds(status, "Drifted") for status in experts))
        analyses = [analysis for status in experts if isinstance(analysis := status.get("analysis"), dict)]
        self._attention.set(sum(analysis.get("needsAttention") is True for analysis in analyses))
        _tally(self._phases, Tally((str(status.get("phase") or "Pending"),) for status in experts))
        _tally(self._trends, Tally((str(analysis.get("trend") or "Unknown"),) for analysis in analyses))
        _tally(self._proposals, Tally(_of_proposal(item) for item in cache.all("ExpertProposal")))
        held: Tally[tuple[str, ...]] = Tally()
        for pool in cache.all("ExpertPool"):
            for row in (_status_of(pool).get("lifecycle") or {}).get("acts") or []:
                held[(str(row.get("act")),)] += int(row.get("heldBackTotal") or 0)
        _tally(self._held_back, held)

    def application(self) -> web.Application:
        """Return the web application with /metrics."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._exposition)])
        return app

    async def _exposition(self, _: web.Request) -> web.Response:
        self.refresh()
        text = generate_latest(self.registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})


def _tally(gauge: Gauge, tally: Mapping[tuple[str, ...], int]) -> None:
    """Set a gauge by its labels. Labels that nothing has any more get 0."""
    samples = [sample for metric in gauge.collect() for sample in metric.samples]
    for labels in {tuple(sample.labels.values()) for sample in samples} | tally.keys():
        gauge.labels(*labels).set(tally.get(labels, 0))


def _status_of(manifest: Manifest) -> Mapping[str, Any]:
    """Return the status of an object; empty if it has none."""
    status: Mapping[str, Any] = manifest.get("status") or {}
    return status


def _holds(status: Mapping[str, Any], type_: str) -> bool:
    return any(item["type"] == type_ and item["status"] == "True" for item in status.get("conditions") or [])


def _of_proposal(manifest: Manifest) -> tuple[str, ...]:
    act = str((manifest.get("spec") or {}).get("act") or "")
    return act, str(_status_of(manifest).get("phase") or "Pending")
