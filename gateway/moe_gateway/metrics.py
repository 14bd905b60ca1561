"""What a gateway counts. Labels are names of the pool's own Experts, so the policy limits the number of series."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from moe_gateway.observations import Counts

#: Buckets in seconds, from a table look-up to a long answer.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Metrics:
    """The gateway's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Register every metric."""
        self.registry = CollectorRegistry()
        #: What the operator asks for, which needs no registry.
        self.counts = Counts()
        self.requests = Counter(
            "moe_gateway_requests",
            "Requests that an Expert began to answer, by how the Expert was chosen and how the request ended: the HTTP "
            "status, or 499 if the client left, 502, 503 or 504 if a stream broke off, was cut off or stalled.",
            ("expert", "strategy", "code"),
            registry=self.registry,
        )
        self.rejected = Counter(
            "moe_gateway_rejected",
            "Requests that the gateway itself refused or could not answer, by error code.",
            ("code",),
            registry=self.registry,
        )
        self.retries = Counter(
            "moe_gateway_retries",
            "Attempts to reach a server after the first one, by Expert.",
            ("expert",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "moe_gateway_request_seconds",
            "Seconds from the request to the last byte of the answer.",
            ("expert",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_byte_seconds = Histogram(
            "moe_gateway_time_to_first_byte_seconds",
            "Seconds from the request to the first byte of the answer, including routing.",
            ("expert",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.routing_seconds = Histogram(
            "moe_gateway_routing_seconds",
            "Seconds taken to choose an Expert.",
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
            "moe_gateway_policy_loads",
            "New policies read, by result: good or bad.",
            ("result",),
            registry=self.registry,
        )
        self.policy_current = Gauge(
            "moe_gateway_policy_current",
            "1 while the gateway uses the policy that is on disk, 0 while that policy cannot be used.",
            registry=self.registry,
        )

    def policy_loaded(self, good: bool) -> None:
        """Count a new policy."""
        self.policy_loads.labels("good" if good else "bad").inc()
        self.policy_current.set(1 if good else 0)

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)
