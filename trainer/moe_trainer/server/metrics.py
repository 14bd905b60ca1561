"""What an expert server counts, under the names that vLLM gave these things."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from moe_trainer.server.engine import Load

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The server's Prometheus metrics, in a registry of their own, labelled with the Expert's name."""

    def __init__(self, model: str, load: Callable[[], Load]) -> None:
        """Register every metric; `load` is asked at every scrape."""
        self.registry = CollectorRegistry()
        self._labels = (model,)
        self._gauge("vllm:num_requests_running", "Sequences being decoded.", lambda: load().running)
        self._gauge("vllm:num_requests_waiting", "Sequences waiting for a row.", lambda: load().waiting)
        self._gauge(
            "vllm:kv_cache_usage_perc", "Filled share of the cache, 0 to 1.", lambda: load().kv_cache_usage
        )
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = self._counter("vllm:generation_tokens", "Tokens generated.")
        self.first_token_seconds = self._histogram(
            "vllm:time_to_first_token_seconds", "Request to first token."
        )
        self.latency_seconds = self._histogram("vllm:e2e_request_latency_seconds", "Request to last token.")
        self._finished = Counter(
            "vllm:request_success",
            "Requests finished, by reason.",
            ("model_name", "finished_reason"),
            registry=self.registry,
        )

    def finished(self, reason: str) -> None:
        """Count a request that ended."""
        self._finished.labels(*self._labels, reason).inc()

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, ("model_name",), registry=self.registry).labels(*self._labels).set_function(value)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model_name",), registry=self.registry).labels(*self._labels)

    def _histogram(self, name: str, text: str) -> Histogram:
        histogram = Histogram(name, text, ("model_name",), buckets=_SECONDS, registry=self.registry)
        return histogram.labels(*self._labels)
