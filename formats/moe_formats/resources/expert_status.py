"""ExpertStatus: what the operator found out about an Expert, and did for it."""

from typing import Literal

from pydantic import Field

from moe_formats.format import Format
from moe_formats.resources.base import DigestText, Interval, ShortText
from moe_formats.resources.conditions import Condition
from moe_formats.resources.evaluator import AccuracyStatus, TaskSetStatus


class WindowStatus(Format):
    """One immutable holdout."""

    path: str = Field(max_length=512, description="Beneath the pool's store.")
    digest: DigestText = Field(description="Its content address.")
    clusters: int = Field(description="Clusters of near-duplicate documents held out.")
    segments: int = Field(description="Segments that are scored.")


class SnapshotStatus(Format):
    """The newest snapshot."""

    digest: DigestText = Field(description="Digest of the data, before exclusions.")
    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    job: str = Field(max_length=63, description="The Job that made it.")
    request: str = Field(
        max_length=71, description="Digest of what was asked: sources, filters, refresh slot."
    )
    documents: int = Field(description="Documents kept for training.")
    train_bytes: int = Field(description="Bytes of training text.")
    dropped: dict[str, int] = Field(
        default_factory=dict, max_length=32, description="Documents dropped, by reason."
    )
    anchor: WindowStatus = Field(description="The first holdout.")
    newest: WindowStatus | None = Field(
        default=None, description="The newest holdout, if it is not the anchor."
    )
    tasks: list[TaskSetStatus] = Field(
        default_factory=list,
        max_length=4,
        description="Items of the evaluators that the Expert asks for.",
    )
    time: str = Field(max_length=40, description="When it was committed.")


class TrainingStatus(Format):
    """How far the training of the newest revision is."""

    summary: str = Field(
        default="", max_length=40, description="What the PROGRESS column shows, for example `62%`."
    )
    eta: str = Field(default="", max_length=40, description="What the ETA column shows, for example `14m`.")
    step: int = Field(default=0, description="Optimizer step.")
    max_steps: int = Field(default=0, description="Steps in all.")
    loss: float | None = Field(default=None, description="Training cross-entropy, nats per token.")
    bits_per_byte: float | None = Field(default=None, description="Of the newest validation.")
    tokens_per_second: float | None = Field(default=None, description="Speed of the newest interval.")
    attempt: int = Field(default=0, description="Attempt under way or last made.")


class Scores(Format):
    """What was measured of the promoted revision; docs/concepts.md defines each."""

    bits_per_byte: Interval | None = Field(default=None, description="On the own anchor; lower is better.")
    gain: Interval | None = Field(default=None, description="Mean ln(b_base / b_expert) on the own anchor.")
    specialization_score: Interval | None = Field(default=None, description="0.5: none, 1: complete.")
    forgetting: Interval | None = Field(
        default=None, description="Mean over other domains of b_expert - b_base."
    )
    next_byte_accuracy: float | None = Field(default=None, description="Share of bytes predicted first.")
    next_byte_interval: Interval | None = Field(default=None, description="The same, with its interval.")
    accuracies: list[AccuracyStatus] = Field(
        default_factory=list, max_length=4, description="What the named evaluators found."
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict, max_length=16, description="Scores that could not be computed, and why."
    )
    contamination: Literal["Unknown"] | None = Field(
        default=None,
        description="Set where the revision, or what it was compared with, descends from a checkpoint from outside, or "
        "from more snapshots than are recorded: held-out text may have been in what that was trained on.",
    )


class TargetStatus(Format):
    """One target and what was measured."""

    name: str = Field(max_length=64, description="Field of spec.targets.")
    wanted: float = Field(description="The target.")
    measured: float | None = Field(default=None, description="The end of the interval that is judged.")
    met: bool | None = Field(default=None, description="Absent: it could not be judged.")


class ServingStatus(Format):
    """What serves, and how far the change to another revision is."""

    target: str | None = Field(
        default=None,
        max_length=63,
        description="The revision that should serve: the newest promoted one, or the one that spec.revision pins. Requests "
        "go to it as soon as one of its servers is ready.",
    )
    starting: str | None = Field(
        default=None,
        max_length=63,
        description="A revision that is about to be promoted: its servers start without traffic, to show that they can "
        "load its weights. Absent: none.",
    )
    revision: str | None = Field(
        default=None, max_length=63, description="The revision that all traffic goes to."
    )
    digest: DigestText | None = Field(default=None, description="Its artefact.")
    replicas: int = Field(default=0, description="Servers that run.")
    ready_replicas: int = Field(default=0, description="Servers that answer with the digest.")
    url: str | None = Field(default=None, max_length=512, description="Address inside the cluster.")


class ExpertStatus(Format):
    """What the operator found out and did. Bounded: long series live in metrics and in the store."""

    observed_generation: int = Field(default=0, description="Generation that this status describes.")
    phase: str = Field(default="", max_length=40, description="A summary for people; nothing reads it.")
    reason: str = Field(default="", max_length=128, description="Why it is in that phase.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Reconciling, Stalled and what they rest on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    revisions: int = Field(default=0, description="Number of the newest revision; names are NAME-NUMBER.")
    latest_revision: str | None = Field(default=None, max_length=63, description="The newest revision.")
    current_revision: str | None = Field(default=None, max_length=63, description="The promoted revision.")
    base_revision: str | None = Field(
        default=None, max_length=63, description="The pinned revision of the base."
    )
    snapshot: SnapshotStatus | None = Field(default=None, description="The newest snapshot.")
    training: TrainingStatus | None = Field(default=None, description="Training of the newest revision.")
    scores: Scores | None = Field(default=None, description="Measured of the promoted revision.")
    score: str = Field(default="", max_length=40, description="What the SCORE column shows.")
    targets: str = Field(
        default="", max_length=16, description="What the TARGETS column shows, for example `2/3`."
    )
    target_results: list[TargetStatus] = Field(
        default_factory=list, max_length=16, description="Each target."
    )
    serving: ServingStatus | None = Field(default=None, description="What serves.")
    replicas: int = Field(default=0, description="Servers, for the scale subresource.")
    selector: str = Field(
        default="", max_length=512, description="Label selector of the servers, for the scale subresource."
    )
