"""What the agent knows about a pod's containers: plain values that pass between disk, decisions and status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LOST_CODE = 137
Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class Exit:
    """How one attempt ended. Times are seconds since the epoch."""

    code: int
    started_at: float
    finished_at: float
    reason: str
    signal: int = 0
    message: str = ""
    container_id: str = ""
    lost: bool = False
    """The container was lost with its supervisor or the machine; its own command is not to blame."""


@dataclass(frozen=True)
class Problem:
    """Why a container is not started: the reason and message of its waiting state."""

    reason: str
    message: str
    permanent: bool = False
    """Trying again cannot help."""


@dataclass
class ContainerState:
    """One container of a pod, as it is now."""

    name: str
    attempt: int = 0
    """How often it was started; attempts on disk are numbered from 1."""
    started_at: float | None = None
    exit: Exit | None = None
    """End of the latest attempt; None while it runs or before the first."""
    previous: Exit | None = None
    problem: Problem | None = None
    back_off: float = 0.0
    """Seconds to wait after the end of the latest attempt."""
    retry_at: float = 0.0
    started: bool = False
    """Whether its startup probe has succeeded or it has none."""
    ready: bool = False
    stopping: bool = False

    @property
    def running(self) -> bool:
        """Return whether its command runs."""
        return self.started_at is not None and self.exit is None

    @property
    def restarts(self) -> int:
        """Return how often it was restarted."""
        return max(0, self.attempt - 1)


@dataclass(frozen=True)
class End:
    """Why a whole pod is being stopped. If `phase` is None, the exits of its containers decide it."""

    grace: float
    reason: str = ""
    message: str = ""
    phase: Literal["Failed"] | None = None
    disrupted: bool = False
    """The node causes the end, not the pod; a DisruptionTarget condition says so."""
    restarts_later: bool = False
    """The agent stops but the pod stays: its containers are started again when the agent returns."""


@dataclass(frozen=True)
class Decision:
    """What to do about a pod now, and when to decide again if nothing happens until then."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    phase: Phase = "Pending"
    initialized: bool = False
    look_again: float | None = None

    @property
    def final(self) -> bool:
        """Return whether nothing will ever run in this pod again."""
        return self.phase in ("Succeeded", "Failed")


@dataclass
class PodState:
    """A pod's containers by name, in the order of its spec, and why it is ending, if it is."""

    containers: dict[str, ContainerState] = field(default_factory=dict)
    end: End | None = None
    sandboxed: bool = False
    """Whether its volumes and its address exist."""
    address: str = ""
    admitted_at: float = 0.0
