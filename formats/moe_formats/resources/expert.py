"""Expert: a model specialised in a domain, from its data to its serving."""

from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.names import EvaluatorName, Name
from moe_formats.resources.base import ObjectMeta, cel
from moe_formats.resources.data import Data
from moe_formats.resources.evaluator import AccuracyTarget
from moe_formats.resources.expert_base import Base
from moe_formats.resources.expert_status import ExpertStatus
from moe_formats.resources.training import Training


class Targets(Format):
    """What the Expert has to reach; judged by the unfavourable end of each interval."""

    specialization_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Smallest lower bound of the specialization score, 0.5 (none) to 1. Default: no target.",
    )
    gain: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Smallest lower bound of the mean gain over the base on the own domain, as ln(b_base / b_expert); "
        "0.12 is about 12 %. Default: no target.",
    )
    bits_per_byte: float | None = Field(
        default=None,
        gt=0,
        le=8,
        description="Largest upper bound of bits per byte on the own anchor. Default: no target.",
    )
    accuracy: AccuracyTarget | None = Field(
        default=None, description="Smallest accuracy by a named evaluator of the pool. Default: no target."
    )


class Promotion(Format):
    """What the gate asks beyond its fixed clauses."""

    enforcement: Literal["Report", "Serve"] = Field(
        default="Report",
        description="`Serve`: unmet targets keep a first revision from serving. `Report`: they only show in "
        "TargetsMet. Default: Report.",
    )
    max_forgetting: float | None = Field(
        default=None,
        ge=0,
        le=8,
        description="Largest upper bound of forgetting: mean over the other domains of b_expert - b_base, in bits "
        "per byte. Default: not limited.",
    )
    evaluators: list[EvaluatorName] = Field(
        default_factory=list,
        max_length=3,
        description="Evaluators of the pool by which a revision must not be inferior to the one before it, beside "
        "that of `targets.accuracy`. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    accuracy_margin: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="How much accuracy a revision may lose at the lower end of the interval and still not be "
        "inferior. Below about 1.5 / items nothing can be shown. Default: 0.05.",
    )


class Serving(Format):
    """How the promoted revision is served."""

    replicas: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Servers of the promoted revision; `kubectl scale` sets it. Default: 1.",
    )
    profile: Name = Field(default="cpu", description="Hardware profile of the servers. Default: cpu.")
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature of requests that give none; 0 takes the most probable token. A change restarts "
        "the servers and trains nothing. Default: what the artefact's generation_config.json says, 1 for a preset.",
    )


class ExpertSpec(Format):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.pool == oldSelf.pool",
                "pool is immutable: delete the Expert and create it in the other pool",
            ),
            (
                "has(self.domain) == has(oldSelf.domain) && (!has(self.domain) || self.domain == oldSelf.domain)",
                "domain is immutable, since holdouts and scores belong to it: create another Expert",
            ),
            (
                "!has(self.targets) || !has(self.targets.specializationScore) || has(self.domain)",
                "targets.specializationScore needs a domain: set spec.domain or remove the target",
            ),
            (
                "self.training.balancing.against != 'Base' || !has(self.base.preset)",
                "training.balancing.against Base needs base.expert or base.store: a preset has no load to keep",
            ),
            (
                "self.training.regularization == 0.0 || has(self.data.replay)",
                "training.regularization holds the Expert to its base on replayed text: give data.replay, or leave it out",
            ),
            (
                "self.training.specializationLossWeight == 0.0 || !has(self.base.preset)",
                "training.specializationLossWeight needs a base to be better than, which a preset is not: leave it out,"
                " or give base.expert",
            ),
            (
                "!has(self.data.replay) || has(self.base.expert)",
                "data.replay needs base.expert: only the data of an Expert of this pool can be read again",
            ),
            (
                "self.training.method == 'Full' || !has(self.base.preset)",
                "training.method trains beside a base's frozen weights, and a preset has none: take method Full",
            ),
        )
    )

    pool: Name = Field(description="The ExpertPool of this namespace that the Expert belongs to. Immutable.")
    domain: Name | None = Field(
        default=None,
        description="What the Expert is specialised in. Absent: a mixture, such as `general`, that others branch "
        "from. Immutable.",
    )
    base: Base = Field(description="What the first revision starts from.")
    data: Data = Field(description="What it learns from.")
    training: Training = Field(default_factory=Training, description="How it learns. Default: all defaults.")
    targets: Targets = Field(
        default_factory=Targets, description="What it has to reach. Default: no targets."
    )
    promotion: Promotion = Field(default_factory=Promotion, description="The gate's options.")
    serving: Serving = Field(
        default_factory=Serving, description="How it is served. Default: one CPU server."
    )
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of initialisation and batch order. Default: 0."
    )
    run_id: str = Field(
        default="",
        alias="runID",
        max_length=63,
        description="Part of a revision's identity: change it to read the data and train again with the same spec. "
        "Default: empty.",
    )
    revision: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="Pins the ExpertRevision that serves, for example for a rollback. Default: the newest promoted.",
    )
    paused: bool = Field(
        default=False,
        description="Starts no new work; what runs is finished and what serves goes on. Default: false.",
    )


class Expert(Format):
    """A model specialised in a domain: its data, training, targets and serving."""

    metadata: ObjectMeta
    spec: ExpertSpec
    status: ExpertStatus = Field(default_factory=ExpertStatus)
