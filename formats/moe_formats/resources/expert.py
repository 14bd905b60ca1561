"""Expert: a model that is specialised in a domain, from its data to its serving."""

from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.names import EvaluatorName, Name
from moe_formats.resources.base import CustomResource, cel
from moe_formats.resources.data import Data
from moe_formats.resources.evaluator import AccuracyTarget
from moe_formats.resources.expert_base import Base
from moe_formats.resources.expert_status import ExpertStatus
from moe_formats.resources.training import Training


class Targets(Format):
    """What the Expert has to reach. A target is compared with the unfavourable end of the measured interval."""

    specialization_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Specialization score to reach: 0.5 is no specialization, 1 is complete. It is met if the lower end of "
        "the measured interval is at least this, and missed if the Expert gains nothing over its base. It can only be "
        "measured for an Expert with a domain and a base that is not a preset, in a pool with another domain. "
        "Default: no target.",
    )
    gain: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Gain over the base to reach on the Expert's own domain: the mean of ln(b_base / b_expert), where b is "
        "bits per byte; 0.12 is about 12 % better. It is met if the lower end of the measured interval is at least this. "
        "It cannot be measured for an Expert that starts from a preset. Default: no target.",
    )
    bits_per_byte: float | None = Field(
        default=None,
        gt=0,
        le=8,
        description="Bits per byte to reach on the Expert's own anchor; lower is better. It is met if the upper end of "
        "the measured interval is at most this. Default: no target.",
    )
    accuracy: AccuracyTarget | None = Field(
        default=None,
        description="Accuracy to reach by a named evaluator of the pool. The promotion gate then also refuses a revision "
        "that is worse by this evaluator. Default: no target.",
    )


class Promotion(Format):
    """What the promotion gate asks for in addition to its fixed clauses."""

    enforcement: Literal["Report", "Serve"] = Field(
        default="Report",
        description="What unmet targets do. `Serve`: they keep a first revision from serving. `Report`: they only show in "
        "the condition TargetsMet.",
    )
    max_forgetting: float | None = Field(
        default=None,
        ge=0,
        le=8,
        description="Largest forgetting that is accepted: the mean of b_expert - b_base over the other domains, in bits per "
        "byte. The upper end of the measured interval is compared with it. Where forgetting cannot be measured (the Expert "
        "starts from a preset, or the pool has no other domain), the gate waits. Default: no limit.",
    )
    evaluators: list[EvaluatorName] = Field(
        default_factory=list,
        max_length=3,
        description="Evaluators of the pool by which a revision must not be worse than the current one (a first revision: "
        "than its base), in addition to the evaluator of `targets.accuracy`. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    accuracy_margin: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Accuracy that a revision may lose: the lower end of the interval of the difference must be at least "
        "-accuracyMargin. If both give the same answers, the lower end is about -4.4 divided by the number of clusters of "
        "items, so with a smaller margin the gate waits for more items.",
    )


class Serving(Format):
    """With how many servers the Expert is served, and on what hardware."""

    replicas: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Number of servers of the revision that serves. While another one takes over, each has as many. "
        "`kubectl scale` changes it. With 0, the Expert does not serve.",
    )
    profile: Name = Field(
        default="cpu",
        description="Hardware profile of the servers, one of those that the platform's owner defined in the chart's "
        "values.",
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature of requests that give none; 0 always takes the most probable token. A change "
        "restarts the servers and trains nothing. Default: the temperature in the artefact's generation_config.json, "
        "or 1 for a preset.",
    )


class ExpertSpec(Format):
    """What the user asks of the Expert."""

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
                "training.balancing.against Base needs base.expert or base.store, since a preset has no load to keep: leave it "
                "out",
            ),
            (
                "self.training.regularization == 0.0 || has(self.data.replay)",
                "training.regularization keeps the Expert close to its base on replayed text: give data.replay (which needs "
                "base.expert), or leave it out",
            ),
            (
                "self.training.specializationLossWeight == 0.0 || !has(self.base.preset)",
                "training.specializationLossWeight compares the Expert with its base, and a preset has no base: leave it out, "
                "or give base.expert or base.store",
            ),
            (
                "!has(self.data.replay) || has(self.base.expert)",
                "data.replay needs base.expert: only the data of an Expert of this pool can be read again",
            ),
            (
                "!has(self.training.curriculum) || self.data.sources.exists(s, has(s.weight))"
                " && self.data.sources.filter(s, !has(s.weight) || s.weight > 0.0).size() >= 2",
                "training.curriculum moves weights between sources: give at least two of data.sources a weight above 0, for "
                "example 1, or leave it out",
            ),
            (
                "self.training.method == 'Full' || !has(self.base.preset)",
                "training.method adds to the frozen weights of a base, and a preset has none: use method Full",
            ),
        )
    )

    pool: Name = Field(description="ExpertPool in this namespace that the Expert belongs to. Immutable.")
    domain: Name | None = Field(
        default=None,
        description="Domain that the Expert is specialised in, for example `law`. Immutable. Default: none, for a mixture "
        "such as `general` that other Experts start from.",
    )
    base: Base = Field(description="What training starts from. Another base trains the Expert again.")
    data: Data = Field(description="The documents that the Expert learns from.")
    training: Training = Field(
        default_factory=Training,
        description="How the Expert's weights are made. Default: the default of every field.",
    )
    targets: Targets = Field(
        default_factory=Targets, description="What the Expert has to reach. Default: no targets."
    )
    promotion: Promotion = Field(
        default_factory=Promotion,
        description="What the promotion gate asks for in addition to its fixed clauses. Default: nothing, unless "
        "targets.accuracy names an evaluator: the gate then compares by it, with accuracyMargin 0.05.",
    )
    serving: Serving = Field(
        default_factory=Serving,
        description="With how many servers the Expert is served, and on what hardware. Default: one server on a CPU.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the initialisation and of the order of batches. A change makes a new revision.",
    )
    run_id: str = Field(
        default="",
        alias="runID",
        max_length=63,
        description="Free text that is part of a revision's identity. Change it to read the data and train again with an "
        "otherwise unchanged spec.",
    )
    revision: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="Name of the ExpertRevision that serves, for example for a rollback. It must have been promoted. "
        "Default: the current revision.",
    )
    paused: bool = Field(
        default=False,
        description="If `true`, no new work starts for the Expert. Running Jobs finish, and its servers keep serving.",
    )


class Expert(CustomResource):
    """A model specialised in a domain: its data, training, targets and serving."""

    spec: ExpertSpec
    status: ExpertStatus = Field(default_factory=ExpertStatus)
