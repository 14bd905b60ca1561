"""What a gateway counts. Labels are the pool's own Experts, so their number is bounded by the policy."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Seconds; from a table look-up on a laptop to a long answer.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Metrics:
    """The gateway's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Register every metric."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "moe_gateway_requests",
            "Requests answered by an Expert, by how the Expert was chosen and the HTTP status.",
            ("expert", "strategy", "code"),
            registry=self.registry,
        )
        self.rejected = Counter(
            "moe_gateway_rejected",
            "Requests refused or failed by the gateway itself, by error code.",
            ("code",),
            registry=self.registry,
        )
        self.retries = Counter(
            "moe_gateway_retries", "Attempts after the first.", ("expert",), registry=self.registry
        )
        self.seconds = Histogram(
            "moe_gateway_request_seconds",
            "Time from request to last byte.",
            ("expert",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_byte_seconds = Histogram(
            "moe_gateway_time_to_first_byte_seconds",
            "Time from request to the first byte of the answer, routing included.",
            ("expert",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.routing_seconds = Histogram(
            "moe_gateway_routing_seconds",
            "Time to choose an Expert.",
            ("strategy",),
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, *_SECONDS),
            registry=self.registry,
        )
        self.confidence = Histogram(
            "moe_gateway_route_confidence",
            "Probability of the chosen Expert.",
            ("expert",),
            buckets=_SHARES,
            registry=self.registry,
        )
        self.in_flight = Gauge("moe_gateway_in_flight", "Requests in flight.", registry=self.registry)
        self.policy_loads = Counter(
            "moe_gateway_policy_loads", "New policies seen, by outcome.", ("result",), registry=self.registry
        )
        self.policy_current = Gauge(
            "moe_gateway_policy_current",
            "1 while the gateway serves by the policy that is on disk, 0 while that one is not usable.",
            registry=self.registry,
        )

    def policy_loaded(self, good: bool) -> None:
        """Count a new policy."""
        self.policy_loads.labels("good" if good else "bad").inc()
        self.policy_current.set(1 if good else 0)

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)
