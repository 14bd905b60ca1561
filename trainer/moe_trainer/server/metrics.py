"""What an Expert's server counts: metrics under the names that vLLM uses, and tokens for the operator."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from moe_formats.observations import ExpertCounts, Observations, new_boot
from moe_trainer.server.engine import Load

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The server's Prometheus metrics, in a registry of their own, labelled with the Expert's name.

    The gauges of waiting and running sequences are those of the whole server, under the name of its first Expert.
    """

    def __init__(self, model: str, load: Callable[[], Load]) -> None:
        """Register every metric; `load` is called at every scrape."""
        self.registry = CollectorRegistry()
        self._boot = new_boot()
        self._experts: dict[str, ExpertMetrics] = {}
        self._gauge(model, "vllm:num_requests_running", "Sequences being decoded.", lambda: load().running)
        self._gauge(
            model, "vllm:num_requests_waiting", "Sequences waiting for a row.", lambda: load().waiting
        )
        self._gauge(
            model,
            "vllm:kv_cache_usage_perc",
            "Filled share of the cache, 0 to 1.",
            lambda: load().kv_cache_usage,
        )
        label = ("model_name",)
        self._prompt_tokens = Counter(
            "vllm:prompt_tokens", "Prompt tokens processed.", label, registry=self.registry
        )
        self._generation_tokens = Counter(
            "vllm:generation_tokens", "Tokens generated.", label, registry=self.registry
        )
        self._first_token_seconds = Histogram(
            "vllm:time_to_first_token_seconds",
            "Request to first token.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._token_seconds = Histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time per token of a request after its first token.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._latency_seconds = Histogram(
            "vllm:e2e_request_latency_seconds",
            "Request to last token.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._finished = Counter(
            "vllm:request_success",
            "Requests finished, by reason.",
            ("model_name", "finished_reason"),
            registry=self.registry,
        )

    def of(self, model: str) -> "ExpertMetrics":
        """Return the metrics of one Expert."""
        self._experts[model] = ExpertMetrics(
            prompt_tokens=self._prompt_tokens.labels(model),
            generation_tokens=self._generation_tokens.labels(model),
            first_token_seconds=self._first_token_seconds.labels(model),
            token_seconds=self._token_seconds.labels(model),
            latency_seconds=self._latency_seconds.labels(model),
            finished=lambda reason: self._finished.labels(model, reason).inc(),
        )
        return self._experts[model]

    def observations(self) -> Observations:
        """Return the tokens of each Expert since the server started."""
        return Observations(
            boot=self._boot,
            experts={
                model: ExpertCounts(
                    prompt_tokens=metrics.tokens.prompt, completion_tokens=metrics.tokens.completion
                )
                for model, metrics in self._experts.items()
            },
        )

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, model: str, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, ("model_name",), registry=self.registry).labels(model).set_function(value)


@dataclass
class Tokens:
    """Tokens of one Expert since the server started."""

    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True)
class ExpertMetrics:
    """The metrics of one Expert."""

    prompt_tokens: Counter
    generation_tokens: Counter
    first_token_seconds: Histogram
    token_seconds: Histogram
    latency_seconds: Histogram
    finished: Callable[[str], None]  #: Counts a finished request, by the reason for its end.
    tokens: Tokens = field(default_factory=Tokens)

    def read(self, prompt_tokens: int) -> None:
        """Count the tokens of a prompt."""
        self.prompt_tokens.inc(prompt_tokens)
        self.tokens.prompt += prompt_tokens

    def generated(self, completion_tokens: int) -> None:
        """Count the tokens of an answer."""
        self.generation_tokens.inc(completion_tokens)
        self.tokens.completion += completion_tokens
