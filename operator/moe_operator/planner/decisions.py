"""What every stage of planning an Expert decided: its status and its events are made from this."""

from dataclasses import dataclass

from moe_formats.resources.expert_revision import ExpertRevisionStatus, Verdict
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.data import DataDecision
from moe_operator.planner.making import Making
from moe_operator.planner.rollout import Rollout
from moe_operator.planner.validation import Finding
from moe_operator.planner.wanted import Wanted
from moe_operator.state import ExpertState


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What every stage of ``plan_expert`` decided."""

    state: ExpertState
    finding: Finding | None
    paused: bool
    data: DataDecision
    base: BaseDecision
    wanted: Wanted
    #: Experts whose first snapshot is awaited before a suite is drawn.
    awaited: tuple[str, ...]
    making: Making | None
    rollout: Rollout
    #: Whether this plan creates something.
    created: bool

    @property
    def generation(self) -> int:
        """Return the generation of the Expert that was looked at."""
        return self.state.expert.metadata.generation

    @property
    def newest(self) -> ExpertRevisionStatus | None:
        """Return the status of the revision that matters now: in the making or refused, else the current."""
        if self.making is not None:
            return self.making.status
        return self.wanted.current.status if self.wanted.current is not None else None

    @property
    def newest_name(self) -> str:
        """Return its name, or an empty text."""
        revision = self.making.revision if self.making is not None else self.wanted.current
        return revision.metadata.name if revision is not None else ""

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict on the revision in the making or refused, or None."""
        return self.making.status.verdict if self.making is not None else None
