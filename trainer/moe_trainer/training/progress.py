"""Rank 0's progress over HTTP: ``/progress`` for the operator, ``/metrics`` for Prometheus.

It only informs; nothing is decided by it, and a training run never waits for it.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

from moe_formats.job_report import Progress

if TYPE_CHECKING:  # torch, which only a real run has imported
    from moe_trainer.moe.balance import LayerLoad
    from moe_trainer.training.run import Run

#: Seconds between two reports.
REPORT_SECONDS = 1.0
#: Largest number of requests that are answered at the same time. Any more are hung up on.
AT_ONCE = 16

_HELP = {
    "step": "Optimizer steps done.",
    "max_steps": "Optimizer steps in all.",
    "loss": "Training cross-entropy, nats per token.",
    "bits_per_byte": "Bits per byte of the newest validation, on training-side text that is not trained on.",
    "tokens_per_second": "Training throughput.",
    "eta_seconds": "Seconds until the last step.",
    "load_max_violation": "How far the busiest in-layer expert is above its fair share, largest over layers; 0 is balance.",
    "load_entropy": "Entropy of the load divided by ln E, smallest over layers; 1 is perfect balance.",
    "dead_experts": "In-layer experts without a slot in the newest step, summed over layers.",
    "drop_rate": "Share of the slots that were dropped in the newest step, largest over layers.",
    "router_logit_rms": "Root mean square of the router's logits, largest over layers.",
}


class ProgressServer:
    """Serves the progress that was published last. Use it as a context manager."""

    def __init__(self, address: str, port: int | None) -> None:
        """Listen at an address; without a port, do nothing."""
        self.latest = Progress(step=0, max_steps=0)
        self.more_metrics = ""
        self._server = None if port is None else _Server((address, port), self._handler())

    @property
    def port(self) -> int | None:
        """The port on which it listens."""
        return self._server.server_address[1] if self._server else None

    def __enter__(self) -> "ProgressServer":
        if self._server:
            Thread(target=self._server.serve_forever, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def publish(self, progress: Progress, more_metrics: str = "") -> None:
        """Serve this progress from now on; ``more_metrics``, in Prometheus' text format, is appended to its metrics."""
        self.latest, self.more_metrics = progress, more_metrics

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:  # the name that http.server asks for
                if self.path == "/progress":
                    self._answer(server.latest.to_json(), "application/json")
                elif self.path == "/metrics":
                    self._answer(metrics(server.latest) + server.more_metrics, "text/plain; version=0.0.4")
                else:
                    self.send_error(404)

            def _answer(self, text: str, content_type: str) -> None:
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep polls out of the training log."""

        return Handler


class _Server(ThreadingHTTPServer):
    """Answers at most AT_ONCE requests at the same time, so that nobody can fill the training process with threads."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._places = Semaphore(AT_ONCE)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


def metrics(progress: Progress) -> str:
    """Return progress in Prometheus' text format, without figures that are not known."""
    lines = []
    for name, description in _HELP.items():
        value = getattr(progress, name)
        if value is not None:
            metric = f"moe_trainer_{name}"
            lines += [f"# HELP {metric} {description}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    return "\n".join(lines) + "\n"


#: Most series for single in-layer experts; for models with more of them, only figures per layer are shown.
MAX_EXPERT_SERIES = 8192

#: Name, description, and the figure of a layer.
_OF_A_LAYER: "tuple[tuple[str, str, Callable[[LayerLoad], float]], ...]" = (
    ("router_max_violation", "How far the busiest in-layer expert is above its fair share.", lambda load: load.max_violation),
    ("router_entropy", "Entropy of the load divided by ln E; 1 is perfect balance.", lambda load: load.entropy),
    ("router_dead_experts", "In-layer experts without a slot.", lambda load: load.dead),
    ("router_drop_rate", "Share of slots that were dropped.", lambda load: load.drop_rate),
    ("router_logit_rms", "Root mean square of the router's logits.", lambda load: load.logit_rms),
)  # fmt: skip


def load_metrics(loads: "Sequence[LayerLoad]") -> str:
    """Return the metrics of a step from one load per layer: labelled by layer, shares also by in-layer expert."""
    lines: list[str] = []
    for name, description, figure in _OF_A_LAYER:
        series = ((f'layer="{layer}"', figure(load)) for layer, load in enumerate(loads))
        lines += _gauge(name, description, series)
    if sum(len(load.counts) for load in loads) <= MAX_EXPERT_SERIES:
        shares = (
            (f'layer="{layer}",expert="{expert}"', share)
            for layer, load in enumerate(loads)
            for expert, share in enumerate(load.shares)
        )
        lines += _gauge("router_load", "Share of a layer's slots that chose an in-layer expert.", shares)
    return "".join(f"{line}\n" for line in lines)


def _gauge(name: str, description: str, series: Iterable[tuple[str, float]]) -> list[str]:
    metric = f"moe_trainer_{name}"
    lines = [f"{metric}{{{labels}}} {value:.6g}" for labels, value in series]
    return [f"# HELP {metric} {description}", f"# TYPE {metric} gauge", *lines] if lines else []


class Reporter:
    """Reports a run's progress about once a second: to the log, and to the progress server."""

    def __init__(self, training: "Run", progress: ProgressServer) -> None:
        self._training, self._progress = training, progress
        self._started = self._logged = time.monotonic()
        self._first = training.step

    def report(self, last: bool) -> None:
        """Report the newest step if it is time to do so, or if it was the last."""
        now = time.monotonic()
        if now - self._logged < REPORT_SECONDS and not last:
            return
        self._logged = now
        training = self._training
        rate = (training.step - self._first) / (now - self._started)
        answer = Progress(
            step=training.step,
            max_steps=training.steps,
            loss=training.curve.losses[-1],
            bits_per_byte=next(reversed(training.curve.validations.values()), None),
            tokens_per_second=rate * training.batches.tokens,
            eta_seconds=(training.steps - training.step) / rate,
            load_max_violation=max((load.max_violation for load in training.loads), default=None),
            load_entropy=min((load.entropy for load in training.loads), default=None),
            dead_experts=sum(load.dead for load in training.loads) if training.loads else None,
            drop_rate=max((load.drop_rate for load in training.loads), default=None),
            router_logit_rms=max((load.logit_rms for load in training.loads), default=None),
        )
        self._progress.publish(answer, load_metrics(training.loads))
        print(_line(answer), flush=True)


def _line(progress: Progress) -> str:
    validation = f"  {progress.bits_per_byte:.3f} bits/byte" if progress.bits_per_byte is not None else ""
    loss = "-, no token was learnt" if progress.loss is None else f"{progress.loss:.4f}"
    return (
        f"step {progress.step}/{progress.max_steps}  loss {loss}{validation}"
        f"  {progress.tokens_per_second or 0:.0f} tokens/s  {progress.eta_seconds or 0:.0f} s left"
    )
