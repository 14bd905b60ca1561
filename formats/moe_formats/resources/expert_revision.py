"""ExpertRevision: one immutable attempt to change weights, with its evidence. Only the operator writes it."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.resources.base import DigestText, Interval, Name, ObjectMeta, ShortText, cel
from moe_formats.resources.conditions import Condition
from moe_formats.resources.expert_status import Scores, WindowStatus
from moe_formats.resources.training import Balancing, Bank, EarlyStop, LoRA


class Cause(StrEnum):
    """Why a revision was made. A new lifecycle feature adds a cause, never a second path."""

    SPEC_CHANGED = "SpecChanged"
    NEW_DATA = "NewData"


class ParentRef(Format):
    """The artefact that training starts from."""

    revision: str = Field(max_length=63, description="ExpertRevision that made it.")
    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    digest: DigestText = Field(description="SHA-256 of its manifest.")
    ancestry: list["SnapshotInput"] = Field(
        default_factory=list, max_length=64, description="Snapshots that it and its parents were trained on."
    )
    contamination: Literal["Unknown"] | None = Field(
        default=None,
        description="Set where it is, or descends from, a checkpoint from outside, whose training text is unknown, or "
        "from more snapshots than are recorded.",
    )


class SnapshotInput(Format):
    """A snapshot by digest."""

    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    digest: DigestText = Field(description="The data digest.")


class HoldoutInput(Format):
    """One anchor of the frozen suite."""

    domain: Name | None = Field(default=None, description="The domain; absent for a mixture's own anchor.")
    expert: Name = Field(description="The Expert whose snapshot made it.")
    window: WindowStatus = Field(description="The holdout.")


class TrainingInput(Format):
    """The normalised training spec: every field that changes weights, each with a value."""

    method: Literal["Full", "LoRA", "ExpertBank"] = Field(
        default="Full", description="See Expert.spec.training."
    )
    lora: LoRA = Field(default_factory=LoRA, description="See Expert.spec.training. Of method LoRA alone.")
    bank: Bank = Field(
        default_factory=Bank, description="See Expert.spec.training. Of method ExpertBank alone."
    )
    learning_rate: float = Field(description="See Expert.spec.training.")
    max_steps: int | None = Field(default=None, description="See Expert.spec.training.")
    max_epochs: float = Field(description="See Expert.spec.training.")
    replay_share: float = Field(default=0, description="See Expert.spec.data.replay.")
    batch_tokens: int = Field(description="See Expert.spec.training.")
    weight_decay: float = Field(description="See Expert.spec.training.")
    load_balancing_loss_weight: float = Field(description="See Expert.spec.training.")
    auxiliary_loss_weight: float = Field(description="See Expert.spec.training.")
    schedule: Literal["Cosine", "Linear", "Constant"] = Field(
        default="Cosine", description="See Expert.spec.training."
    )
    warmup_fraction: float = Field(default=0.05, description="See Expert.spec.training.")
    gradient_clip: float = Field(default=1, description="See Expert.spec.training.")
    recompute: bool = Field(default=False, description="See Expert.spec.training.")
    specialization_loss_weight: float = Field(default=0, description="See Expert.spec.training.")
    micro_batch_tokens: int | None = Field(default=None, description="See Expert.spec.training.")
    context_tokens: int | None = Field(default=None, description="See Expert.spec.training.")
    across_documents: bool = Field(default=True, description="See Expert.spec.training.")
    regularization: float = Field(default=0, description="See Expert.spec.training.")
    early_stop: EarlyStop | None = Field(default=None, description="See Expert.spec.training.")
    balancing: Balancing = Field(
        default_factory=Balancing, description="See Expert.spec.training. Default: as before it existed."
    )
    validation_every: int = Field(description="See Expert.spec.training.")
    checkpoint_every: int = Field(description="See Expert.spec.training.")


class Inputs(Format):
    """What the identity of a revision is made of. Images, kernels and hardware are provenance instead."""

    parent: ParentRef | None = Field(
        default=None, description="Artefact it starts from; absent for a preset."
    )
    merged_with: list[ParentRef] = Field(
        default_factory=list,
        max_length=7,
        exclude_if=lambda parents: not parents,
        description="Further artefacts whose weights are merged with the parent's before training. Empty: the revision "
        "has one parent or none.",
    )
    preset: str | None = Field(
        default=None, max_length=40, description="Architecture it starts from, without a parent."
    )
    data: SnapshotInput = Field(description="What it learns from.")
    training: TrainingInput = Field(description="How it learns.")
    seed: int = Field(description="Seed of initialisation and batch order.")
    run_id: str = Field(default="", alias="runID", max_length=63, description="spec.runID of the Expert.")

    @property
    def parents(self) -> list[ParentRef]:
        """Every artefact that the weights are made from, the parent first; empty for a preset."""
        return [self.parent, *self.merged_with] if self.parent is not None else []


class ExpertRevisionSpec(Format):
    """Everything that was decided when the revision was made; immutable."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self == oldSelf", "an ExpertRevision is immutable: change the Expert instead"),
        )
    )

    expert: Name = Field(description="The Expert it belongs to.")
    expert_uid: str = Field(
        alias="expertUID", max_length=64, description="UID of that Expert; its folder in the store."
    )
    pool: Name = Field(description="The pool of that Expert.")
    number: int = Field(ge=1, description="Counts up per Expert.")
    cause: Cause = Field(description="Why it was made.")
    cause_message: str = Field(
        default="",
        max_length=1024,
        description="What asked for the revision, in words: the fields of the spec that changed, or the data that did.",
    )
    inputs: Inputs = Field(description="What its identity is made of.")
    inputs_digest: DigestText = Field(description="Digest of `inputs`.")
    anchor: WindowStatus = Field(description="The Expert's first holdout.")
    newest: WindowStatus | None = Field(
        default=None, description="Its newest holdout, if it is not the anchor."
    )
    suite: list[HoldoutInput] = Field(
        default_factory=list,
        max_length=16,
        description="The anchors of the pool's domains when it was made; frozen.",
    )
    suite_digest: DigestText = Field(description="Digest of the suite.")


class ArtefactStatus(Format):
    """The weights that training committed."""

    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    digest: DigestText = Field(description="SHA-256 of its manifest.")
    report: DigestText = Field(description="Digest of its report.json.")
    steps: int = Field(description="Optimizer steps.")
    tokens: int = Field(description="Tokens trained on.")
    final_loss: float = Field(description="Mean training cross-entropy of the last interval, nats per token.")
    parameters: int = Field(description="Weights that were trained.")
    resumed_from: int = Field(
        default=0, description="Step of the checkpoint that the last attempt resumed from."
    )


class DecisionStatus(Format):
    """One comparison that the gate read."""

    role: Literal["anchor", "window"] = Field(description="Which holdout.")
    holdout: DigestText = Field(description="Its content address.")
    uses: int = Field(description="How many decisions have used it, this one included.")
    alpha: float = Field(description="Error rate of the bound.")
    against: Literal["current", "base", "unigram"] = Field(description="What the candidate is compared with.")
    interval: Interval = Field(description="Mean ln(b_candidate / b_against); negative is better.")
    upper: float = Field(description="One-sided upper bound at 1 - alpha: what the gate reads.")


class Evidence(Format):
    """What the evaluate Job measured."""

    report: DigestText = Field(description="Digest of its report.json.")
    current: str | None = Field(default=None, max_length=63, description="The revision it was compared with.")
    delta: float = Field(description="Margin of the gate.")
    noise_floor: float = Field(description="Difference of two scorings of the same weights.")
    decisions: list[DecisionStatus] = Field(
        default_factory=list, max_length=8, description="The comparisons."
    )
    scores: Scores = Field(default_factory=Scores, description="Scores on the frozen suite.")
    row: dict[str, float] = Field(
        default_factory=dict,
        max_length=16,
        description="Row of the matrix: bits per byte by domain of the suite.",
    )
    base_row: dict[str, float] = Field(
        default_factory=dict, max_length=16, description="The base's row, likewise."
    )


class Verdict(Format):
    """What the gate decided."""

    outcome: Literal["Promoted", "Refused", "Waiting", "Failed"] = Field(description="The decision.")
    clause: str = Field(max_length=64, description="Clause of the gate that decided, for example `anchor`.")
    reason: str = Field(max_length=128, description="One CamelCase word.")
    message: str = Field(max_length=2048, description="The numbers and the interval, in words.")
    final: bool = Field(description="True: these inputs are not tried again. False: it waits.")
    time: str = Field(max_length=40, description="When it was decided.")


class ExpertRevisionStatus(Format):
    """What became of the revision."""

    observed_generation: int = Field(default=0, description="Generation that this status describes.")
    phase: str = Field(default="", max_length=40, description="A summary for people; nothing reads it.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Trained, Evaluated, Promoted, Ready, Reconciling, Stalled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    attempts: int = Field(default=0, description="Training attempts made.")
    artefact: ArtefactStatus | None = Field(default=None, description="The weights.")
    evidence: Evidence | None = Field(default=None, description="What was measured.")
    verdict: Verdict | None = Field(default=None, description="What the gate decided.")
    provenance: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=16,
        description="Images, profile and operator version: recorded, not identity.",
    )


class ExpertRevision(Format):
    """One immutable attempt to change an Expert's weights: inputs by digest, cause, evidence, artefact."""

    metadata: ObjectMeta
    spec: ExpertRevisionSpec
    status: ExpertRevisionStatus = Field(default_factory=ExpertRevisionStatus)
