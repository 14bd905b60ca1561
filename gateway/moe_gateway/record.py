"""What became known about one request: a line in the log and a count in the metrics, however the request ends.

A stream's status was sent before its end is known, so what is recorded is not that status but the outcome:

    499   the client left before it had the whole answer, or did not read it in time
    502   the stream broke off
    503   the gateway stopped, and the time for requests in flight was over
    504   the stream stalled for too long

Prompts and answers are in no log.
"""

import json
import logging
import time
from dataclasses import dataclass, field

from moe_gateway.decision import SettledBy
from moe_gateway.metrics import Metrics

log = logging.getLogger(__name__)

#: The outcome of a request whose client has left, as in the logs of nginx.
CLIENT_LEFT = 499


@dataclass
class Record:
    """One request. `expert`, `revision` and `strategy` are known once a server has begun to answer.

    `aimed_at` is the Expert that was last chosen for it, whether or not a server of it answered.
    """

    request_id: str
    method: str
    path: str
    caller: str | None = None
    aimed_at: str | None = None
    expert: str | None = None
    revision: str | None = None
    strategy: SettledBy | None = None
    stream: bool = False
    first_byte_seconds: float | None = None
    outcome: int | None = None
    error: str | None = None
    started: float = field(default_factory=time.monotonic)

    def answering(self, expert: str, revision: str, strategy: SettledBy, *, stream: bool) -> None:
        """Note that a server of an Expert has begun to answer."""
        self.expert, self.revision, self.strategy, self.stream = expert, revision, strategy, stream
        self.first_byte_seconds = time.monotonic() - self.started

    def fails(self, outcome: int, error: str) -> None:
        """Note why the request has no answer, or not a whole one; the first reason counts."""
        if self.error is None:
            self.outcome, self.error = outcome, error

    def end(self, status: int, metrics: Metrics) -> None:
        """Count the request and write its line; `status` is that of the answer if nothing failed."""
        seconds = time.monotonic() - self.started
        outcome = self.outcome or status
        if self.expert is not None and self.strategy is not None:
            metrics.requests.labels(self.expert, self.strategy, str(outcome)).inc()
            metrics.seconds.labels(self.expert).observe(seconds)
        elif self.error is not None:
            metrics.rejected.labels(self.error).inc()
        if self.aimed_at is not None:
            metrics.counts.ended(
                self.aimed_at,
                outcome,
                stood_in=self.strategy == "Fallback",
                first_token_seconds=self.first_byte_seconds if self.stream else None,
            )
        line = {
            "id": self.request_id,
            "caller": self.caller,
            "method": self.method,
            "path": self.path,
            "expert": self.expert,
            "revision": self.revision,
            "strategy": self.strategy,
            "stream": self.stream,
            "outcome": outcome,
            "error": self.error,
            "seconds": round(seconds, 4),
            "firstByteSeconds": self.first_byte_seconds and round(self.first_byte_seconds, 4),
        }
        log.info("%s", json.dumps({name: value for name, value in line.items() if value is not None}))
