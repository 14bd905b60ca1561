"""ExpertStatus: what the operator found out about an Expert, and did for it."""

from typing import Literal

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_report import Accuracy, Interval, TaskSet, Window
from moe_formats.resources.base import ShortText
from moe_formats.resources.conditions import ObjectStatus


class SnapshotStatus(Format):
    """The newest snapshot."""

    digest: Digest = Field(description="Digest of the data, before anything is excluded.")
    path: str = Field(max_length=512, description="Folder of the snapshot, relative to the pool's store.")
    job: str = Field(max_length=63, description="Name of the Job that made the snapshot.")
    request: str = Field(
        max_length=71,
        description="What the snapshot answers: a digest of the sources, the filters and spec.runID, and the number of "
        "the refresh period.",
    )
    documents: int = Field(description="Number of documents that are kept for training.")
    train_bytes: int = Field(description="Size of the training text, in bytes.")
    dropped: dict[str, int] = Field(
        default_factory=dict, max_length=32, description="Number of documents dropped, by reason."
    )
    anchor: Window = Field(description="The first holdout of the Expert.")
    newest: Window | None = Field(
        default=None, description="The newest holdout of the Expert. Absent if it is the anchor."
    )
    tasks: list[TaskSet] = Field(
        default_factory=list,
        max_length=4,
        description="Items of the evaluators that the Expert asks for, frozen with the snapshot.",
    )
    time: str = Field(max_length=40, description="When the operator recorded the snapshot.")


class TrainingStatus(Format):
    """Progress of the training of the newest revision."""

    summary: str = Field(
        default="", max_length=40, description="Text of the PROGRESS column, for example `62%`."
    )
    eta: str = Field(default="", max_length=40, description="Text of the ETA column, for example `14m`.")
    step: int = Field(default=0, description="Number of optimizer steps done.")
    max_steps: int = Field(default=0, description="Number of optimizer steps that the training takes.")
    loss: float | None = Field(
        default=None, description="Training cross-entropy of the newest step, in nats per token."
    )
    bits_per_byte: float | None = Field(default=None, description="Bits per byte of the newest validation.")
    tokens_per_second: float | None = Field(default=None, description="Tokens trained on per second.")
    attempt: int = Field(default=0, description="Number of the attempt that is running, or ran last.")


class Scores(Format):
    """Measured scores of a revision; docs/concepts.md defines each."""

    bits_per_byte: Interval | None = Field(
        default=None, description="Bits per byte on the Expert's own anchor; lower is better."
    )
    gain: Interval | None = Field(
        default=None,
        description="Mean of ln(b_base / b_expert) on the Expert's own anchor, where b is bits per byte; 0.12 is about "
        "12 % better than the base.",
    )
    specialization_score: Interval | None = Field(
        default=None,
        description="How clearly the gain is larger on the Expert's own domain than on others: 0.5 is not at all, 1 is "
        "always.",
    )
    forgetting: Interval | None = Field(
        default=None,
        description="Mean of b_expert - b_base over the other domains, in bits per byte; above 0, the Expert is worse "
        "there than its base.",
    )
    next_byte_accuracy: float | None = Field(
        default=None,
        description="Share of the bytes of the Expert's own anchor that were the model's most probable next byte.",
    )
    next_byte_interval: Interval | None = Field(
        default=None, description="Next-byte accuracy with its 95 % interval."
    )
    accuracies: list[Accuracy] = Field(
        default_factory=list,
        max_length=4,
        description="What the named evaluators found, one entry per evaluator.",
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=16,
        description="Names of scores that could not be computed, with the reason.",
    )
    contamination: Literal["Unknown"] | None = Field(
        default=None,
        description="`Unknown` if held-out text may have been trained on: the revision, or what it was compared with, "
        "descends from a checkpoint from outside or from more snapshots than are recorded. Absent if everything is known.",
    )


class TargetStatus(Format):
    """One target, and what was measured."""

    name: str = Field(max_length=64, description="Name of the field in spec.targets.")
    wanted: float = Field(description="Value that spec.targets asks for.")
    measured: float | None = Field(
        default=None,
        description="Unfavourable end of the measured interval, which the target is compared with.",
    )
    met: bool | None = Field(
        default=None, description="Whether the target is met. Absent if it could not be judged."
    )


class ServingStatus(Format):
    """What serves the Expert's requests, and how far the change to another revision is."""

    target: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the revision that should serve: the newest promoted one, or the one that spec.revision pins. "
        "Requests go to it as soon as one of its servers is ready.",
    )
    starting: str | None = Field(
        default=None,
        max_length=63,
        description="Name of a revision that is about to be promoted. Its servers start without traffic, to show that they "
        "can load its weights. Absent if there is none.",
    )
    revision: str | None = Field(
        default=None, max_length=63, description="Name of the revision that gets all traffic."
    )
    digest: Digest | None = Field(default=None, description="Digest of that revision's artefact.")
    replicas: int = Field(default=0, description="Number of servers that are asked for.")
    ready_replicas: int = Field(default=0, description="Number of servers that are ready for requests.")
    url: str | None = Field(
        default=None, max_length=512, description="Address of the servers inside the cluster."
    )


class ExpertStatus(ObjectStatus):
    """What the operator found out and did. Its size is bounded: long series are in metrics and in the store."""

    revisions: int = Field(
        default=0,
        description="Number of the newest revision. A revision is named after its Expert and its number, as `law-2`.",
    )
    latest_revision: str | None = Field(
        default=None, max_length=63, description="Name of the newest revision, whether promoted or not."
    )
    current_revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the promoted revision: the newest that passed the gate.",
    )
    base_revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the base's revision that is pinned: the one the first revision of this Expert started from.",
    )
    snapshot: SnapshotStatus | None = Field(default=None, description="The newest snapshot of the data.")
    training: TrainingStatus | None = Field(
        default=None, description="Progress of the training of the newest revision."
    )
    scores: Scores | None = Field(default=None, description="Measured scores of the promoted revision.")
    score: str = Field(default="", max_length=40, description="Text of the SCORE column.")
    targets: str = Field(
        default="",
        max_length=16,
        description="Text of the TARGETS column: targets met of all, for example `2/3`.",
    )
    target_results: list[TargetStatus] = Field(
        default_factory=list, max_length=16, description="What was measured for each target."
    )
    serving: ServingStatus | None = Field(default=None, description="What serves the Expert's requests.")
    replicas: int = Field(default=0, description="Number of servers, for the scale subresource.")
    selector: str = Field(
        default="",
        max_length=512,
        description="Label selector of the servers' pods, for the scale subresource.",
    )
