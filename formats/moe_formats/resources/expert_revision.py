"""ExpertRevision: one immutable attempt to change weights, with its evidence. Only the operator writes it."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.job_config import ArtefactRef, Rehearsal, SnapshotRef
from moe_formats.job_report import ANCHOR, Decision, Window
from moe_formats.names import Name, ObjectName
from moe_formats.resources.base import CustomResource, ShortText, cel
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.expert_status import Scores
from moe_formats.training_spec import TrainingSpec


class Cause(StrEnum):
    """Why a revision was made. The promotion gate asks more of new data than of a changed spec."""

    SPEC_CHANGED = "SpecChanged"
    NEW_DATA = "NewData"
    DRIFT = "Drift"
    REBASE = "Rebase"


class HoldoutInput(Format):
    """One holdout of the frozen suite."""

    domain: Name | None = Field(
        default=None, description="Domain that the holdout stands for. Absent for a mixture's own anchor."
    )
    expert: Name = Field(description="Name of the Expert whose snapshot made the holdout.")
    window: Window = Field(description="The holdout itself: where it is and how large.")


class Inputs(Format):
    """What the revision's identity is computed from. Images, kernels and hardware are recorded as provenance instead."""

    parent: ArtefactRef | None = Field(
        default=None, description="Artefact that training starts from. Absent if it starts from a preset."
    )
    merged_with: list[ArtefactRef] = Field(
        default_factory=list,
        max_length=7,
        exclude_if=lambda parents: not parents,
        description="Further artefacts, whose weights are to be merged with the parent's before training. The operator "
        "does not set it yet. Default: none; the revision has one parent, or starts from a preset.",
    )
    preset: str | None = Field(
        default=None,
        max_length=40,
        description="Preset that training starts from. Absent if there is a parent.",
    )
    data: SnapshotRef = Field(description="Snapshot that the revision is trained on.")
    training: TrainingSpec = Field(
        description="How the revision is trained, with a value for every field. Its identity leaves out checkpointEvery and "
        "recompute, which change no weights, and validationEvery unless training may stop early."
    )
    rehearsal: Rehearsal | None = Field(
        default=None,
        exclude_if=lambda rehearsal: rehearsal is None,
        description="For a revision that specialises again after drift: which text is new, what is mixed in, and how long "
        "it trains. Default: all of the snapshot's text is read alike, for as long as training says.",
    )
    seed: int = Field(description="Seed of the initialisation and of the order of batches.")
    run_id: str = Field(
        default="",
        alias="runID",
        max_length=63,
        description="The Expert's spec.runID when the revision was made.",
    )

    @property
    def parents(self) -> list[ArtefactRef]:
        """Every artefact that the weights are made from, the parent first; empty for a preset."""
        return [self.parent, *self.merged_with] if self.parent is not None else []


class ExpertRevisionSpec(Format):
    """Everything that was decided when the revision was made. Immutable."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self == oldSelf", "an ExpertRevision is immutable: change the Expert instead"),
        )
    )

    expert: Name = Field(description="Name of the Expert that the revision belongs to.")
    expert_uid: str = Field(
        alias="expertUID",
        max_length=64,
        description="UID of the Expert's object, which names its folder in the store.",
    )
    pool: Name = Field(description="Name of the pool that the Expert belongs to.")
    number: int = Field(ge=1, description="Number of the revision, counted from 1 for each Expert.")
    cause: Cause = Field(
        description="Why the revision was made: the Expert has new data (`NewData`), its spec changed (`SpecChanged`, also "
        "for a first revision), it drifted (`Drift`), or it follows a newer revision of its base (`Rebase`). The last two "
        "come from an ExpertProposal."
    )
    cause_message: str = Field(
        default="",
        max_length=1024,
        description="What asked for the revision, in words: the fields of the spec that changed, with both values, or the "
        "data that did. Default: empty, for a revision of an earlier operator.",
    )
    inputs: Inputs = Field(description="What the revision's identity is computed from.")
    inputs_digest: Digest = Field(description="Identity of the revision: a digest of its inputs.")
    anchor: Window = Field(description=ANCHOR)
    newest: Window | None = Field(
        default=None, description="The newest holdout of the Expert. Absent if it is the anchor."
    )
    train_bytes: int | None = Field(
        default=None,
        description="Size of the training text of the snapshot, in bytes. Absent in a revision of an earlier operator.",
    )
    suite: list[HoldoutInput] = Field(
        default_factory=list,
        max_length=16,
        description="Holdouts that the revision is measured on: the anchors of the pool's domains when it was made. "
        "Default: none.",
    )
    suite_digest: Digest = Field(description="Digest of the suite.")


class ArtefactStatus(Format):
    """The weights that training stored."""

    path: str = Field(max_length=512, description="Folder of the artefact, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the artefact's manifest: the artefact's digest.")
    report: Digest = Field(description="SHA-256 of the training's report.json.")
    steps: int = Field(description="Optimizer step that the weights are from.")
    tokens: int = Field(description="Number of tokens trained on.")
    final_loss: float = Field(
        description="Mean training cross-entropy over the last validation interval that has one, in nats per token."
    )
    parameters: int = Field(description="Number of weights that were trained.")
    resumed_from: int = Field(
        default=0, description="Step of the checkpoint that the last attempt resumed from; 0 if from none."
    )


class Evidence(Format):
    """What the evaluate Job measured."""

    report: Digest = Field(description="SHA-256 of the evaluation's report.json.")
    current: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the current revision that this one was compared with. Absent for a first revision.",
    )
    delta: float = Field(
        description="Smallest difference of ln(bits per byte) that counts for the gate: 0.005 (about 0.5 %), or twice "
        "noiseFloor if that is larger."
    )
    noise_floor: float = Field(
        description="Difference of ln(bits per byte) between two scorings of the same weights; 0 on a CPU."
    )
    decisions: list[Decision] = Field(
        default_factory=list, max_length=8, description="The comparisons that the gate read."
    )
    scores: Scores = Field(default_factory=Scores, description="Scores on the frozen suite.")
    row: dict[str, float] = Field(
        default_factory=dict,
        max_length=16,
        description="The revision's row of the matrix: bits per byte by domain of the suite.",
    )
    base_row: dict[str, float] = Field(
        default_factory=dict,
        max_length=16,
        description="The base's row of the matrix: bits per byte by domain of the suite.",
    )


class Verdict(Format):
    """What the gate decided."""

    outcome: Literal["Promoted", "Refused", "Waiting", "Failed", "Withdrawn"] = Field(
        description="The decision. `Promoted`: the revision becomes the current one. `Refused`: it does not, and the last "
        "good revision goes on serving. `Waiting`: no decision is possible yet. `Failed`: a Job failed for good, or no "
        "server could load the weights. `Withdrawn`: it was promoted, and an ExpertProposal took it back."
    )
    clause: str = Field(
        max_length=64,
        description="What settled the decision: a clause of the gate (`window`, `anchor`, `forgetting`, `evaluators`, "
        "`targets`, `loads`), `all` clauses together, a `holdout` that is too small, the `training` or `evaluation` that "
        "failed, or the `proposal` that took a promotion back.",
    )
    reason: str = Field(
        max_length=128, description="Why, as one CamelCase word; docs/reasons.md explains each."
    )
    message: str = Field(max_length=2048, description="Why, in words, with the numbers and the interval.")
    final: bool = Field(
        description="`true`: these inputs are not trained again. A refusal is still judged anew if spec.targets or "
        "spec.promotion of the Expert changes. `false`: the decision waits."
    )
    time: str = Field(
        max_length=40,
        description="When the decision was made: RFC 3339 in UTC, for example `2026-01-31T12:00:00+00:00`.",
    )
    proposal: ObjectName | None = Field(
        default=None,
        description="ExpertProposal that took the promotion back. Absent if none did.",
    )


class ExpertRevisionStatus(ObjectStatus):
    """How far the revision is, what was measured, and what the gate decided."""

    phase: str = Field(
        default="",
        max_length=40,
        description="Summary in one word, for people: `Training`, `Evaluating`, `Superseded` (the Expert asks for another "
        "revision now), or the outcome of the verdict: `Promoted`, `Refused`, `Waiting`, `Failed` or `Withdrawn`. Programs "
        "should read conditions.",
    )
    attempts: int = Field(default=0, description="Number of training attempts made so far.")
    artefact: ArtefactStatus | None = Field(
        default=None, description="The weights that training stored. Absent before training is done."
    )
    device_seconds: float | None = Field(
        default=None,
        description="What the training attempt that finished took: its seconds times its accelerators, or its processes on a "
        "CPU. Absent before training is done, and if it was not observed.",
    )
    evidence: Evidence | None = Field(
        default=None, description="What was measured of the weights. Absent before evaluation is done."
    )
    verdict: Verdict | None = Field(
        default=None, description="What the gate decided. Absent before its first decision."
    )
    provenance: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=16,
        description="What the newest training attempt ran on: `image`, hardware `profile`, number of accelerators "
        "(`devices`; 0 on a CPU), and version of the `operator`. None of it is part of the revision's identity.",
    )


class ExpertRevision(CustomResource):
    """One immutable attempt to change an Expert's weights: inputs by digest, cause, evidence, artefact."""

    spec: ExpertRevisionSpec
    status: ExpertRevisionStatus = Field(default_factory=ExpertRevisionStatus)
