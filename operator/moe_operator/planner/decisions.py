"""What was observed and decided about one Expert in one pass: one value, which the stages of ``plan_expert`` fill."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from moe_formats.resources.conditions import Condition
from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus, Verdict
from moe_formats.resources.expert_status import ServingStatus
from moe_operator.config import OperatorConfig
from moe_operator.planner.attempts import Work
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.conditions import Says
from moe_operator.planner.data import DataDecision
from moe_operator.planner.demand import Wanted
from moe_operator.planner.validation import Finding, may_pass
from moe_operator.state import Event, ExpertState, Manifest, ObjectRef, ObservedJob

Stage = Literal["Waiting", "Training", "Evaluating", "Starting", "Decided"]


@dataclass(frozen=True)
class Making:
    """The stage that the wanted revision has reached, and what has to be created for its next step."""

    revision: ExpertRevision
    stage: Stage
    #: The revision's status after this pass.
    status: ExpertRevisionStatus
    #: The Jobs of the current stage; None where the stage has none.
    work: Work | None = None
    create: tuple[Manifest, ...] = ()
    #: Seconds until time alone changes the decision.
    wait: float | None = None


@dataclass(frozen=True)
class Serving:
    """Which revision should serve, and which changes its servers need now."""

    condition: Condition
    #: None while no revision has been promoted and none is starting.
    status: ServingStatus | None
    #: The revision that should serve; None while none is promoted.
    target: ExpertRevision | None = None
    apply: tuple[Manifest, ...] = ()
    scale: tuple[tuple[ObjectRef, int], ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Measuring:
    """What is known of the current revision's drift, and what is done to know it."""

    #: For the status; None if nothing is known of that revision.
    status: DriftStatus | None
    #: What the condition Drifted says; None if there is no such condition.
    says: Says | None
    #: Jobs that stay; other drift Jobs are deleted.
    keep: tuple[ObservedJob, ...] = ()
    create: tuple[Manifest, ...] = ()
    #: Seconds until time alone changes the decision.
    wait: float | None = None
    #: Whether this pass records a result.
    fresh: bool = False


@dataclass(kw_only=True)
class Decisions:
    """What was observed and decided about one Expert. Each stage reads what earlier stages filled in."""

    state: ExpertState
    config: OperatorConfig
    now: datetime
    #: What makes the Expert impossible as it is written; None if nothing does.
    finding: Finding | None
    base: BaseDecision
    wanted: Wanted
    data: DataDecision
    #: Names of the Experts whose first snapshot is awaited before a suite is drawn.
    awaited: tuple[str, ...] = ()
    #: The stage that the wanted revision has reached; None if no revision has to be made, or while there is no pool.
    making: Making | None = None
    measuring: Measuring = field(init=False)
    serving: Serving = field(init=False)
    #: By name, revisions whose promotion a proposal takes back or gives again, as they are in the cluster still.
    moved: Mapping[str, ExpertRevision] = field(default_factory=dict)
    #: Jobs and revisions to create.
    create: tuple[Manifest, ...] = ()

    @property
    def pool(self) -> ExpertPool:
        """The Expert's pool. Only for stages that run after validation has found a pool: without one, this fails."""
        assert self.state.pool is not None
        return self.state.pool

    @property
    def paused(self) -> bool:
        """Whether the Expert or its pool is paused."""
        pool = self.state.pool
        return self.state.expert.spec.paused or (pool is not None and pool.spec.paused)

    @property
    def may_start(self) -> bool:
        """Whether new work may start. Work that is running continues in any case."""
        return self.finding is None and not self.paused

    @property
    def mistake(self) -> Finding | None:
        """The finding of validation; None also while the missing object may still arrive from the same apply."""
        passing = self.finding is not None and may_pass(self.finding, self.state.expert, now=self.now)
        return None if passing else self.finding

    @property
    def generation(self) -> int:
        """Generation of the Expert that was observed."""
        return self.state.expert.metadata.generation

    @property
    def subject(self) -> ExpertRevision | None:
        """The revision that the status is about: the one that is being made or was refused, otherwise the current one."""
        return self.wanted.revision or self.wanted.current

    @property
    def subject_name(self) -> str | None:
        """Name of ``subject``."""
        return self.subject.metadata.name if self.subject is not None else None

    @property
    def subject_status(self) -> ExpertRevisionStatus | None:
        """Status of ``subject`` after this pass."""
        if self.making is not None:
            return self.making.status
        return self.subject.status if self.subject is not None else None

    @property
    def subject_is_known(self) -> bool:
        """Whether ``subject`` is final for the spec: it is not while the data are being read or the base is awaited."""
        return self.data.answers and self.base.ready

    @property
    def verdict(self) -> Verdict | None:
        """The gate's verdict on the revision that is being made or was refused; None before there is one."""
        return self.making.status.verdict if self.making is not None else None
