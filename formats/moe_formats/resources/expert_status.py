"""ExpertStatus: what the operator found out about an Expert, and did for it."""

from datetime import datetime

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_config import DATA_DIGEST, Contamination
from moe_formats.job_report import ANCHOR, UNREADABLE, Accuracy, Interval, TaskSet, Unreadable, Window
from moe_formats.names import ObjectName
from moe_formats.resources.analysis import ExpertAnalysis
from moe_formats.resources.base import ShortText
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.drift import DriftStatus


class SnapshotStatus(Format):
    """The newest snapshot."""

    digest: Digest = Field(description=DATA_DIGEST)
    path: str = Field(max_length=512, description="Folder of the snapshot, relative to the pool's store.")
    job: str = Field(max_length=63, description="Name of the Job that made the snapshot.")
    request: str = Field(
        max_length=71,
        description="What the snapshot answers: a digest, and the number of the reading. The digest is of the Expert's UID, "
        "spec.data without refresh, refreshSchedule and gates, spec.runID, the evaluators that the Expert asks for, and "
        "spec.base if it is a checkpoint in a data store or has changed since the snapshot before.",
    )
    base: str | None = Field(
        default=None,
        max_length=1024,
        description="What spec.base named when the snapshot was asked for: an Expert, a preset or a checkpoint. Held-out text "
        "was tried with its tokenizer. Absent for a snapshot of an earlier operator.",
    )
    documents: int = Field(description="Number of documents that are kept for training.")
    train_bytes: int = Field(description="Size of the training text, in bytes.")
    dropped: dict[str, int] = Field(
        default_factory=dict, max_length=32, description="Number of documents dropped, by reason."
    )
    anchor: Window = Field(description=ANCHOR)
    newest: Window | None = Field(
        default=None, description="The newest holdout of the Expert. Absent if it is the anchor."
    )
    tasks: list[TaskSet] = Field(
        default_factory=list,
        max_length=4,
        description="Items of the evaluators that the Expert asks for, frozen with the snapshot.",
    )
    unreadable: Unreadable | None = Field(default=None, description=UNREADABLE)
    time: str = Field(
        max_length=40,
        description="When the operator recorded the snapshot: RFC 3339 in UTC, for example `2026-01-31T12:00:00+00:00`.",
    )


class Admitted(Format):
    """How much new text was admitted within an hour."""

    hour: datetime = Field(description="When the hour began.")
    documents: int = Field(description="Number of documents by which snapshots grew.")
    bytes: int = Field(description="Size of the training text by which snapshots grew, in bytes.")


class RefreshStatus(Format):
    """The newest reading of the sources, and when they are due again."""

    request: str = Field(
        max_length=71,
        description="What the sources were read for: a digest of what the Expert asks of its data, and the number of the "
        "reading.",
    )
    job: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the Job of the newest reading. Absent before it began.",
    )
    last: datetime | None = Field(
        default=None, description="When the newest reading began. Absent before it did."
    )
    next: datetime | None = Field(
        default=None,
        description="When the sources are due to be read again. In the past if that waits, for example for a revision that is "
        "being made. Absent if spec.data asks for no further reading.",
    )
    base: str | None = Field(
        default=None,
        max_length=1024,
        description="What spec.base named when the reading was asked for. Absent for a reading of an earlier operator.",
    )
    gates: Digest | None = Field(
        default=None,
        description="Digest of the spec.data.gates by which the delivery was judged: if it was refused and they change, the "
        "sources are read again. Absent if there were none.",
    )
    admitted: list[Admitted] = Field(
        default_factory=list,
        max_length=25,
        description="How much new text was admitted, by hour, in the day before the newest snapshot.",
    )


class TrainingStatus(Format):
    """Progress of the training of the newest revision."""

    summary: str = Field(
        default="", max_length=40, description="Text of the PROGRESS column, for example `62%`."
    )
    eta: str = Field(default="", max_length=40, description="Text of the ETA column, for example `14m`.")
    step: int = Field(default=0, description="Number of optimizer steps done.")
    max_steps: int = Field(default=0, description="Number of optimizer steps that the training takes.")
    loss: float | None = Field(
        default=None,
        description="Training cross-entropy of the newest step, in nats per token. Absent if no step was observed.",
    )
    bits_per_byte: float | None = Field(
        default=None,
        description="Bits per byte of the newest validation. Absent if no validation was observed.",
    )
    tokens_per_second: float | None = Field(
        default=None, description="Tokens trained on per second. Absent if no step was observed."
    )
    attempt: int = Field(default=0, description="Number of the attempt that is running, or ran last.")


class Scores(Format):
    """Measured scores of a revision; docs/concepts.md defines each. A score that is absent has a reason in ``absent``."""

    bits_per_byte: Interval | None = Field(
        default=None,
        description="Bits per byte on the Expert's own anchor; lower is better. Absent if it could not be computed.",
    )
    gain: Interval | None = Field(
        default=None,
        description="Mean of ln(b_base / b_expert) on the Expert's own anchor, where b is bits per byte; 0.12 is about "
        "12 % better than the base. Absent if it could not be computed, as for a preset.",
    )
    specialization_score: Interval | None = Field(
        default=None,
        description="How clearly the gain is larger on the Expert's own domain than on others: 0.5 is not at all, 1 is "
        "always. Absent if it could not be computed, for example because the Expert gains nothing.",
    )
    forgetting: Interval | None = Field(
        default=None,
        description="Mean of b_expert - b_base over the other domains, in bits per byte; above 0, the Expert is worse "
        "there than its base. Absent if it could not be computed, as in a pool with no other domain.",
    )
    next_byte_accuracy: float | None = Field(
        default=None,
        description="Share of the bytes of the Expert's own anchor that were the model's most probable next byte, 0 to 1. "
        "It equals nextByteInterval.value. Absent if it could not be computed.",
    )
    next_byte_interval: Interval | None = Field(
        default=None,
        description="Next-byte accuracy with its 95 % interval. Absent if it could not be computed.",
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
    contamination: Contamination | None = Field(
        default=None,
        description="`Unknown` if held-out text may have been trained on: the revision, or what it was compared with, "
        "descends from a checkpoint from outside or from more snapshots than are recorded. Absent if everything is known.",
    )


class TargetStatus(Format):
    """One target, and what was measured."""

    name: str = Field(
        max_length=64,
        description="Name of the field in spec.targets; for an accuracy, `accuracy.` and the name of the evaluator.",
    )
    wanted: float = Field(description="Value that spec.targets asks for.")
    measured: float | None = Field(
        default=None,
        description="Unfavourable end of the measured interval, which the target is compared with. Absent if the score is.",
    )
    met: bool | None = Field(
        default=None, description="Whether the target is met. Absent if it could not be judged."
    )


class ServingStatus(Format):
    """What serves the Expert's requests, and how far the change to another revision is."""

    target: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the revision that should serve: the current one, or the one that spec.revision pins. "
        "Requests go to it as soon as one of its servers is ready. Absent before a revision is promoted.",
    )
    starting: str | None = Field(
        default=None,
        max_length=63,
        description="Name of a revision that is about to be promoted. Its servers start without traffic, to show that they "
        "can load its weights. Absent if there is none.",
    )
    revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the revision that gets all traffic. Absent before one does.",
    )
    digest: Digest | None = Field(
        default=None,
        description="Digest of the artefact of the revision that gets all traffic (`revision`). Absent before there is one.",
    )
    replicas: int = Field(
        default=0,
        description="Number of servers that the revision that should serve (`target`) is meant to have.",
    )
    ready_replicas: int = Field(
        default=0,
        description="Number of servers of the revision that should serve (`target`) that are ready for requests.",
    )
    url: str | None = Field(
        default=None,
        max_length=512,
        description="Address inside the cluster of the servers of the revision that gets all traffic (`revision`). Absent "
        "before there is one.",
    )


class ExpertStatus(ObjectStatus):
    """What the operator found out and did. Its size is bounded: long series are in metrics and in the store."""

    phase: str = Field(
        default="",
        max_length=40,
        description="Summary in one word, for people. `Pending`, `Waiting` (for another Expert), `Snapshot`, `Training`, "
        "`Evaluating`, `Starting` (a server loads the new revision) and `RollingOut` are stages of work. Otherwise it is "
        "`Serving`, `Ready` (nothing to do, but nothing serves), `Paused`, `Stalled`, or `Error` if the operator failed to "
        "process the Expert. Programs should read conditions.",
    )
    revisions: int = Field(
        default=0,
        description="Number of the newest revision. A revision is named after its Expert and its number, as `law-2`.",
    )
    latest_revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the newest revision, whether promoted or not. Absent before the first.",
    )
    current_revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the current revision: the one that the gate promoted last, or an earlier promoted one whose "
        "inputs the spec asks for again. Absent before one is promoted.",
    )
    base_revision: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the base's revision that is pinned: training for a changed spec starts from it. `imported` for "
        "a checkpoint in a data store. Absent for a preset, and before the base has a promoted revision.",
    )
    snapshot: SnapshotStatus | None = Field(
        default=None, description="The newest snapshot of the data. Absent before the first."
    )
    refresh: RefreshStatus | None = Field(
        default=None,
        description="When the sources were read, and when they are due again. Absent before they are read.",
    )
    training: TrainingStatus | None = Field(
        default=None,
        description="Progress of the newest training. Absent before the first.",
    )
    scores: Scores | None = Field(
        default=None,
        description="Measured scores of the revision that should serve (`serving.target`). Absent before there is one.",
    )
    score: str = Field(
        default="",
        max_length=40,
        description="Text of the SCORE column: the specialization score with its interval, or bits per byte for an Expert "
        "without a domain.",
    )
    targets: str = Field(
        default="",
        max_length=16,
        description="Text of the TARGETS column: number of targets that are met, of all targets, for example `2/3`.",
    )
    target_results: list[TargetStatus] = Field(
        default_factory=list, max_length=16, description="What was measured for each target."
    )
    serving: ServingStatus | None = Field(
        default=None,
        description="What serves the Expert's requests. Absent before a revision is promoted or about to be.",
    )
    drift: DriftStatus | None = Field(
        default=None,
        description="How the current revision does on the Expert's newest text, against its first. Absent before it was "
        "measured; condition `Drifted` says why.",
    )
    proposal: ObjectName | None = Field(
        default=None,
        description="Newest ExpertProposal about the Expert that waits for a person or is being carried out. Absent if there "
        "is none.",
    )
    analysis: ExpertAnalysis | None = Field(
        default=None,
        description="How the Expert was used over the last 24 hours. Absent before anything was observed.",
    )
    replicas: int = Field(
        default=0,
        description="Number of servers that the revision that should serve is meant to have, for the scale subresource.",
    )
    selector: str = Field(
        default="",
        max_length=512,
        description="Label selector of the servers' pods, for the scale subresource.",
    )
