"""What a Job is asked to do: one model per Job, passed as JSON in ``MOE_JOB_CONFIG``.

Paths are relative to roots that the container gets by environment: ``MOE_STORE`` (the pool's store) and
``MOE_SOURCES`` (one read-only folder per data store or claim). So a config means the same on a laptop
and on a large cluster.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from moe_formats.format import Digest, Format
from moe_formats.paths import RelativePath
from moe_formats.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes
from moe_formats.training_spec import TrainingSpec


class OnSegments(Format):
    """A Job that has to do with the segments that the pool's models are compared on."""

    segment_bytes: SegmentBytes = Field(
        default=DEFAULT_SEGMENT_BYTES,
        exclude_if=lambda size: size == DEFAULT_SEGMENT_BYTES,  # what rests on a Job's text stays as it was
        description="Bytes of a segment; a pool has one size.",
    )


class Source(Format):
    """Files to read documents from: by their names jsonl, parquet or plain text, compressed or not."""

    root: str = Field(
        description="Name of the data store or claim: a key of MOE_OBJECT_STORES or a folder beneath MOE_SOURCES."
    )
    path: RelativePath = Field(description="Glob beneath the root, for example `mathematics/*.jsonl.gz`.")
    weight: float | None = Field(
        default=None,
        ge=0,
        description="Share of what is trained on, among the weights of all sources (absent: 1). Where no source "
        "has one, every document is read as often.",
    )
    format: Literal["text", "jsonl", "messages"] = Field(
        description="What a document is: `text`, or `messages` of a conversation. `jsonl`: text, in lines of "
        "JSON whatever the files are called."
    )
    text_field: str = Field(default="text", description="Field or column of a record that holds the text.")
    messages_field: str = Field(
        default="messages", description="Field or column of a record that holds the list of messages."
    )


class Filter(Format):
    """A rule that drops documents; every drop is counted under the filter's name."""

    name: Literal["length", "characterRatio", "nearDuplicate", "language", "perplexity", "codeParses"]
    min: float | None = Field(
        default=None,
        description="Smallest value kept (length: bytes; ratio, and language's probability: 0..1; perplexity: bits "
        "per byte).",
    )
    max: float | None = Field(default=None, description="Largest value kept, in the same units.")
    threshold: float | None = Field(
        default=None,
        description="nearDuplicate: estimated Jaccard similarity from which two documents are one.",
    )
    languages: tuple[str, ...] | None = Field(default=None, description="language: ISO 639-1 codes to keep.")
    language: str | None = Field(default=None, description="codeParses: `python`.")


class HoldoutRule(Format):
    """How a pool splits documents; fixed for the life of the pool."""

    fraction: float = Field(gt=0, lt=1, description="Share of near-duplicate clusters that is held out.")
    salt: str = Field(description="Mixed into the hash that picks the clusters.")
    min_clusters: int = Field(default=20, description="Fewer held-out clusters than this: HoldoutTooSmall.")


class ExpertRef(Format):
    """The Expert a Job works for."""

    name: str
    uid: str
    domain: str | None = Field(default=None, description="Absent for a mixture, such as `general`.")


class SnapshotRef(Format):
    """A committed snapshot in the pool's store."""

    path: RelativePath
    digest: Digest = Field(description="The data digest: what the snapshot holds, before exclusions.")


#: Whether held-out text may have been trained on, beyond what ancestry tells. Absent: ancestry tells everything.
Contamination = Literal["Unknown"]


class ArtefactRef(Format):
    """A committed artefact (weights, tokenizer, manifest) in the pool's store."""

    revision: str = Field(description="Name of the ExpertRevision that made it; for messages only.")
    path: RelativePath
    digest: Digest = Field(description="SHA-256 of its manifest.json.")
    ancestry: tuple[SnapshotRef, ...] = Field(
        default=(), description="Every snapshot that it or a parent was trained on: what it may have seen."
    )
    contamination: Contamination | None = Field(
        default=None,
        description="Set where it descends from a checkpoint from outside, or from more snapshots than are recorded: it "
        "may have seen anything.",
    )


class HoldoutRef(Format):
    """One immutable window of held-out documents."""

    domain: str | None = Field(default=None, description="The domain it stands for; absent for a mixture.")
    expert: str = Field(description="Name of the Expert whose snapshot made it.")
    path: RelativePath
    digest: Digest


Measure = Literal["exactMatch", "codeParses", "container"]


class EvaluatorSource(Format):
    """An evaluator of the pool: where its items are, and how they are put to a model and judged."""

    name: str = Field(description="By which targets and reports call it.")
    measure: Measure
    root: str = Field(description="As of a Source.")
    path: RelativePath = Field(description="Glob of files with a JSON object a line, compressed or not.")
    prompt_field: str = "prompt"
    answer_field: str = "answer"
    max_tokens: int = Field(default=64, gt=0, description="Tokens of an answer.")
    stop: tuple[str, ...] = Field(default=(), description="Texts that end an answer; not part of it.")
    max_items: int = Field(default=500, gt=0, description="More items than this: so many by a fixed draw.")


class TasksRef(Format):
    """The frozen items of an evaluator in the pool's store."""

    evaluator: str = Field(description="Its name.")
    path: RelativePath
    digest: Digest


class Grader(Format):
    """A program that says which answers are right; all that its verdicts depend on beside the answers."""

    name: str = Field(description="By which pools ask for it.")
    image: str
    command: tuple[str, ...] = Field(default=(), description="Empty: the image's own.")


class ImportedBase(Format):
    """A checkpoint from outside: a folder as transformers saves one."""

    root: str = Field(description="Name of the data store, as of a source.")
    path: RelativePath = Field(description="The folder beneath the root.")
    digest: Digest = Field(description="What it must be (imported.py).")


class SnapshotJob(OnSegments):
    """Read the sources, filter, split, write a content-addressed snapshot. Imports no torch."""

    kind: Literal["snapshot"] = "snapshot"
    pool_uid: str
    expert: ExpertRef
    sources: tuple[Source, ...]
    filters: tuple[Filter, ...] = ()
    holdout: HoldoutRule
    evaluators: tuple[EvaluatorSource, ...] = Field(
        default=(), description="Evaluators whose items are frozen beside the snapshot."
    )
    base: ImportedBase | None = Field(
        default=None, description="A checkpoint to copy into the pool's store, to train from."
    )
    preset: str | None = Field(
        default=None, description="What is trained instead, to be refused if it cannot see a segment."
    )
    context_tokens: int | None = Field(
        default=None,
        description="Tokens of a training sequence, likewise; absent: as many as the base can see.",
    )


class TrainJob(Format):
    """Train one revision from a parent artefact or from a preset."""

    kind: Literal["train"] = "train"
    pool_uid: str
    expert: ExpertRef
    revision: str
    attempt: int = Field(
        ge=1, description="An attempt after the first resumes from the last good checkpoint."
    )
    inputs_digest: Digest = Field(description="Identity of the revision; names its folder in the store.")
    parent: ArtefactRef | None = None
    preset: str | None = Field(
        default=None, description="Architecture to initialise when there is no parent."
    )
    base: ArtefactRef | None = Field(
        default=None,
        description="Pinned parent of the first revision, which losses compare with; absent: the parent.",
    )
    data: SnapshotRef
    training: TrainingSpec
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="For generation_config.json; changes no weight."
    )
    seed: int
    expert_parallelism: int = Field(
        default=1,
        ge=1,
        description="Processes over which each layer's in-layer experts are cut. How it runs: no part of identity.",
    )


class Comparison(Format):
    """One comparison that the promotion gate asks for."""

    holdout: HoldoutRef
    role: Literal["anchor", "window"]
    uses: int = Field(default=1, ge=1, description="The k-th use of this holdout for a decision; sets alpha.")


class EvaluateJob(OnSegments):
    """Fill the stale cells of the matrix and compute scores, differences and intervals."""

    kind: Literal["evaluate"] = "evaluate"
    pool_uid: str
    expert: ExpertRef
    revision: str
    candidate: ArtefactRef
    current: ArtefactRef | None = Field(default=None, description="The promoted revision, if there is one.")
    base: ArtefactRef | None = Field(default=None, description="Pinned parent of the first revision.")
    comparisons: tuple[Comparison, ...] = Field(description="Own anchor first, then the newest window.")
    suite: tuple[HoldoutRef, ...] = Field(description="The anchors of all domains, own included; frozen.")
    tasks: tuple[TasksRef, ...] = Field(default=(), description="Items of the evaluators that are asked for.")

    @property
    def models(self) -> list[ArtefactRef]:
        """Return the models that are compared, the candidate first."""
        return [model for model in (self.candidate, self.current, self.base) if model]

    @property
    def contamination(self) -> Contamination | None:
        """Return what is known of held-out text in what the models were trained on: as little as of any of them."""
        return next((model.contamination for model in self.models if model.contamination), None)

    @property
    def opponent(self) -> ArtefactRef | None:
        """Return what answers the same items as the candidate; a first revision of a preset has none."""
        return self.current or self.base

    @property
    def against(self) -> Literal["current", "base"]:
        """Return what the opponent is."""
        return "current" if self.current else "base"


class Grading(Format):
    """Answers to an evaluator's items, and who judges them."""

    evaluator: str
    grader: Grader


class GradeJob(Format):
    """Have graders judge answers that an evaluation left open, and finish its report. Imports no torch."""

    kind: Literal["grade"] = "grade"
    pool_uid: str
    expert: ExpertRef
    revision: str
    evaluation: RelativePath = Field(description="Folder of the report that is finished.")
    report: Digest = Field(description="Digest of that report.")
    gradings: tuple[Grading, ...] = Field(description="The n-th has folder n beneath MOE_GRADINGS.")


class DistillJob(OnSegments):
    """Turn the cells of the matrix into the table of the Distilled strategy. Imports no torch."""

    kind: Literal["distill"] = "distill"
    pool_uid: str
    roster: tuple[ArtefactRef, ...] = Field(description="The served revisions.")
    experts: tuple[ExpertRef, ...] = Field(description="Their Experts, in the same order.")
    suite: tuple[HoldoutRef, ...]


class ComposeJob(Format):
    """Make one checkpoint of the banks of several Experts on one base."""

    kind: Literal["compose"] = "compose"
    pool_uid: str
    banks: tuple[ArtefactRef, ...] = Field(
        min_length=1, description="In the order in which they are stacked."
    )


JobConfig = Annotated[
    SnapshotJob | TrainJob | EvaluateJob | GradeJob | DistillJob | ComposeJob, Field(discriminator="kind")
]
_ADAPTER: TypeAdapter[SnapshotJob | TrainJob | EvaluateJob | GradeJob | DistillJob | ComposeJob] = (
    TypeAdapter(JobConfig)
)


def parse_job_config(text: str) -> SnapshotJob | TrainJob | EvaluateJob | GradeJob | DistillJob | ComposeJob:
    """Return the config in a JSON text; raises pydantic.ValidationError that names the field."""
    return _ADAPTER.validate_json(text)
