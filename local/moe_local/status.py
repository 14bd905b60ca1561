"""How a small cluster is, as `moectl local status` shows it."""

from __future__ import annotations

from dataclasses import dataclass

from moe_local.processes import Process


@dataclass(frozen=True)
class PartStatus:
    """How one process of the cluster is; `process` is None where it does not run."""

    name: str
    process: Process | None
    healthy: bool


@dataclass(frozen=True)
class ClusterStatus:
    """How the whole cluster is."""

    parts: tuple[PartStatus, ...]
    """Empty where the cluster has never been up."""
    node_ready: bool
    operator_ready: bool | None
    """None where the operator was never installed."""

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        parts_well = bool(self.parts) and all(part.healthy for part in self.parts)
        return parts_well and self.node_ready and self.operator_ready is not False
