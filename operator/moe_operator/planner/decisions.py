"""What is known and decided about one Expert in one pass: the one value that the stages of ``plan_expert`` fill."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from moe_formats.resources.conditions import Condition
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus, Verdict
from moe_formats.resources.expert_status import ServingStatus
from moe_operator.config import OperatorConfig
from moe_operator.planner.attempts import Work
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.data import DataDecision
from moe_operator.planner.demand import Wanted
from moe_operator.planner.validation import Finding, may_pass
from moe_operator.state import Event, ExpertState, Manifest, ObjectRef

Stage = Literal["Waiting", "Training", "Evaluating", "Starting", "Decided"]


@dataclass(frozen=True)
class Making:
    """How far the wanted revision is, and what comes next."""

    revision: ExpertRevision
    stage: Stage
    #: Its status after this pass.
    status: ExpertRevisionStatus
    work: Work | None = None
    create: tuple[Manifest, ...] = ()
    wait: float | None = None


@dataclass(frozen=True)
class Serving:
    """Which revision should serve, and what its servers need now."""

    condition: Condition
    #: None while nothing has ever been promoted or started.
    status: ServingStatus | None
    #: The revision that should serve.
    target: ExpertRevision | None = None
    apply: tuple[Manifest, ...] = ()
    scale: tuple[tuple[ObjectRef, int], ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(kw_only=True)
class Decisions:
    """What is observed and decided about one Expert; a stage reads what earlier ones filled in."""

    state: ExpertState
    config: OperatorConfig
    now: datetime
    #: What makes the Expert impossible as it is written.
    finding: Finding | None
    base: BaseDecision
    wanted: Wanted
    data: DataDecision
    #: Experts whose first snapshot is awaited before a suite is drawn.
    awaited: tuple[str, ...] = ()
    #: The wanted revision on its way; None while there is none, or no pool.
    making: Making | None = None
    serving: Serving = field(init=False)
    #: Jobs and revisions to make.
    create: tuple[Manifest, ...] = ()

    @property
    def pool(self) -> ExpertPool:
        """The Expert's pool. Validation stalls an Expert without one, so stages that work for it may ask."""
        assert self.state.pool is not None
        return self.state.pool

    @property
    def paused(self) -> bool:
        """Whether the Expert or its pool is paused."""
        pool = self.state.pool
        return self.state.expert.spec.paused or (pool is not None and pool.spec.paused)

    @property
    def may_start(self) -> bool:
        """Whether new work may start; what runs goes on in any case."""
        return self.finding is None and not self.paused

    @property
    def mistake(self) -> Finding | None:
        """The finding, unless what it misses may still come in the same apply."""
        passing = self.finding is not None and may_pass(self.finding, self.state.expert, now=self.now)
        return None if passing else self.finding

    @property
    def generation(self) -> int:
        """Generation of the Expert that was looked at."""
        return self.state.expert.metadata.generation

    @property
    def subject(self) -> ExpertRevision | None:
        """The revision that matters now: in the making or refused, else the current one."""
        return self.wanted.revision or self.wanted.current

    @property
    def subject_name(self) -> str | None:
        """Its name."""
        return self.subject.metadata.name if self.subject is not None else None

    @property
    def subject_status(self) -> ExpertRevisionStatus | None:
        """Its status after this pass."""
        if self.making is not None:
            return self.making.status
        return self.subject.status if self.subject is not None else None

    @property
    def subject_is_known(self) -> bool:
        """Whether it is known which revision matters: not while the data are read anew, or the base is awaited."""
        return self.data.answers and self.base.ready

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the revision in the making or refused."""
        return self.making.status.verdict if self.making is not None else None
