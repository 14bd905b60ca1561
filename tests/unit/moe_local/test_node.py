"""Whether the node is there now: a Ready condition of yesterday is not enough."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_local.node import node_ready

STARTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class API:
    """Stands for the API server with one node and its Lease."""

    def __init__(self, *, ready: str = "True", renewed: timedelta | None = timedelta(seconds=1)) -> None:
        self.node = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
        time = (STARTED + renewed).isoformat().replace("+00:00", "Z") if renewed is not None else None
        self.lease = {"spec": {"renewTime": time}} if time else None

    def get(self, path: str) -> dict[str, Any] | None:
        return self.node if path.endswith("/nodes/local") else self.lease


@pytest.mark.parametrize(
    ("api", "ready"),
    [
        (API(), True),
        (API(ready="False"), False),
        (API(ready="Unknown"), False),
        (API(renewed=timedelta(minutes=-5)), False),
        (API(renewed=None), False),
    ],
    ids=["well", "not ready", "lost", "said so before the agent was started", "never said anything"],
)
def test_a_node_is_ready_when_it_says_so_now(api: API, ready: bool):
    assert node_ready(api, since=STARTED) is ready
