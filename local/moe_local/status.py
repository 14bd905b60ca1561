"""The state of a small cluster, as `moectl local status` shows it."""

from __future__ import annotations

from dataclasses import dataclass

from moe_local.processes import Process


@dataclass(frozen=True)
class PartStatus:
    """The state of one part of the cluster; `process` is None if it does not run."""

    name: str
    process: Process | None
    healthy: bool


@dataclass(frozen=True)
class ClusterStatus:
    """The state of the whole cluster."""

    parts: tuple[PartStatus, ...]
    """Empty if the cluster was never started."""
    node_ready: bool
    operator_ready: bool | None
    """None if the operator was never installed."""
    not_isolated: tuple[str, ...] = ()
    """What this machine does not allow to isolate, one sentence each, as the node says."""

    @property
    def well(self) -> bool:
        """Return whether everything that is installed runs and is ready."""
        parts_well = bool(self.parts) and all(part.healthy for part in self.parts)
        return parts_well and self.node_ready and self.operator_ready is not False
