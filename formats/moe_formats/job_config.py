"""What a Job is asked to do: one model per command, passed as JSON in ``MOE_JOB_CONFIG``.

Paths are relative to one of two roots that the container gets from its environment: ``MOE_STORE`` (the pool's store)
and ``MOE_SOURCES`` (one read-only folder per data store or claim). So a config means the same on a laptop as on a
large cluster.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from moe_formats.data_scheme import FIRST, Scheme
from moe_formats.evaluator_source import EvaluatorSource
from moe_formats.format import Digest, Format
from moe_formats.gates import Gates
from moe_formats.paths import RelativePath
from moe_formats.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes
from moe_formats.training_spec import TrainingSpec

#: Smallest number of independent clusters from which an interval is computed, and on which anything is decided.
MIN_CLUSTERS = 20

#: Largest number of decisions that one window is used for. Then the gate waits for a newer window.
MAX_USES = 5


class OnSegments(Format):
    """A Job that works on the segments on which a pool's models are compared."""

    segment_bytes: SegmentBytes = Field(
        default=DEFAULT_SEGMENT_BYTES,
        exclude_if=lambda size: (
            size == DEFAULT_SEGMENT_BYTES
        ),  # so that the text of earlier Jobs stays the same
        description="Size of a segment, in bytes. All Jobs of a pool have the same.",
    )


#: Largest number of snapshots that a Job is told of: the config of a Job has to fit into one environment variable.
MAX_TRAINED_ON = 512


#: What a document of a source is.
DocumentFormat = Literal["text", "jsonl", "messages"]

#: What a filter measures of a document.
FilterName = Literal["length", "characterRatio", "nearDuplicate", "language", "perplexity", "codeParses"]


class Source(Format):
    """Files to read documents from. The name of each tells its format and its compression, as in `a.jsonl.gz`."""

    root: str = Field(
        description="Name of the data store or claim: a key of MOE_OBJECT_STORES, or a folder in MOE_SOURCES."
    )
    path: RelativePath = Field(description="Glob relative to the root, for example `mathematics/*.jsonl.gz`.")
    weight: float | None = Field(
        default=None,
        ge=0,
        description="Weight of this source in what is trained on, relative to the weights of the other sources. "
        "Absent: 1 if another source has a weight; if none has, every document is read equally often.",
    )
    format: DocumentFormat = Field(
        description="What a document is: `text` is the text of a record or of a whole file; `messages` is the "
        "conversation of a record; `jsonl` is the text of a line of JSON, whatever the file is called."
    )
    text_field: str = Field(default="text", description="Field or column of a record that holds the text.")
    messages_field: str = Field(
        default="messages", description="Field or column of a record that holds the list of messages."
    )


class Filter(Format):
    """A rule that drops documents. The documents that it drops are counted under its name."""

    name: FilterName = Field(description="What is measured of a document.")
    min: float | None = Field(
        default=None,
        description="Smallest value that is kept: bytes (length), a share of 0 to 1 (characterRatio), the probability of "
        "the language (language), or bits per byte (perplexity).",
    )
    max: float | None = Field(
        default=None,
        description="Largest value that is kept: bytes (length), a share of 0 to 1 (characterRatio), or bits per byte "
        "(perplexity).",
    )
    threshold: float | None = Field(
        default=None,
        description="Read by nearDuplicate: the estimated Jaccard similarity at which two documents count as the same.",
    )
    languages: tuple[str, ...] | None = Field(
        default=None, description="Read by language: ISO 639-1 codes of the languages to keep."
    )
    language: str | None = Field(
        default=None, description="Read by codeParses: the programming language, `python`."
    )


class HoldoutRule(Format):
    """How a pool splits documents into training and held-out text. It never changes during the life of the pool."""

    fraction: float = Field(
        gt=0, lt=1, description="Share of the clusters of near-duplicate documents that is held out."
    )
    salt: str = Field(description="Text that is mixed into the hash that picks the held-out clusters.")
    min_clusters: int = Field(
        default=MIN_CLUSTERS,
        description="Smallest number of held-out clusters. A holdout with fewer is not used to decide anything "
        "(HoldoutTooSmall).",
    )


class ExpertRef(Format):
    """The Expert that a Job works for."""

    name: str = Field(description="Name of the Expert.")
    uid: str = Field(description="UID of the Expert's object, which names its folder in the store.")
    domain: str | None = Field(
        default=None, description="Domain of the Expert. Absent for a mixture, such as `general`."
    )


#: What the digest of a snapshot is of.
DATA_DIGEST = (
    "Digest of the data: the documents that the filters kept, the weights of their sources, and the rule by which some are "
    "held out. Documents that training leaves out because they resemble held-out text are included."
)


class SnapshotRef(Format):
    """A committed snapshot in the pool's store."""

    path: RelativePath = Field(description="Folder of the snapshot, relative to the pool's store.")
    digest: Digest = Field(description=DATA_DIGEST)


#: Whether a model may have been trained on text that its ancestry does not list. Absent: ancestry lists everything.
Contamination = Literal["Unknown"]


class ArtefactRef(Format):
    """A committed artefact (weights, tokenizer and manifest) in the pool's store."""

    revision: str = Field(
        max_length=63,
        description="Name of the ExpertRevision that made the artefact; `imported` for a checkpoint from outside.",
    )
    path: RelativePath = Field(description="Folder of the artefact, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the artefact's manifest.json.")
    ancestry: tuple[SnapshotRef, ...] = Field(
        default_factory=tuple,
        max_length=64,
        description="Snapshots that the artefact and those it descends from were trained on: the text it may have seen. "
        "Default: none.",
    )
    contamination: Contamination | None = Field(
        default=None,
        description="`Unknown` if the artefact descends from a checkpoint from outside, whose training text nobody here "
        "knows, or from more snapshots than are recorded: it may have seen held-out text. Default: ancestry lists "
        "everything.",
    )


class HoldoutRef(Format):
    """One immutable holdout in the pool's store."""

    domain: str | None = Field(
        default=None, description="Domain that the holdout stands for. Absent for a mixture."
    )
    expert: str = Field(description="Name of the Expert whose snapshot made the holdout.")
    path: RelativePath = Field(description="Folder of the holdout, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the holdout's manifest.")


class TasksRef(Format):
    """The frozen items of an evaluator in the pool's store."""

    evaluator: str = Field(description="Name of the evaluator in the pool.")
    path: RelativePath = Field(description="Folder of the items, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the items' manifest.")


class Grader(Format):
    """A program that judges answers: everything that its verdicts depend on, other than the answers."""

    name: str = Field(description="Name by which the evaluators of a pool ask for the grader.")
    image: str = Field(description="Container image of the grader.")
    command: tuple[str, ...] = Field(
        default=(), description="Command to run in the image. Empty: the image's own command."
    )


class ImportedBase(Format):
    """A checkpoint from outside: a folder in the form in which transformers saves one."""

    root: str = Field(
        description="Name of the data store: a key of MOE_OBJECT_STORES, or a folder in MOE_SOURCES."
    )
    path: RelativePath = Field(description="Folder of the checkpoint, relative to the root.")
    digest: Digest = Field(
        description="Digest that the checkpoint must have, as `moe-trainer digest` prints it."
    )


class SnapshotJob(OnSegments):
    """Read the sources, filter and split the documents, and store a content-addressed snapshot. Imports no torch."""

    kind: Literal["snapshot"] = "snapshot"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    expert: ExpertRef = Field(description="The Expert that the snapshot is for.")
    sources: tuple[Source, ...] = Field(description="Where documents come from.")
    filters: tuple[Filter, ...] = Field(
        default=(),
        description="Rules that drop documents. Rules about single documents are applied first, then perplexity, then "
        "nearDuplicate.",
    )
    holdout: HoldoutRule = Field(description="How the pool splits documents.")
    new_pool_scheme: Scheme = Field(
        default=FIRST,
        exclude_if=lambda scheme: scheme == FIRST,  # so that the text of earlier Jobs stays the same
        description="Scheme with which a pool begins that has no documents yet. Any other pool keeps its own.",
    )
    gates: Gates | None = Field(
        default=None, description="Limits that the delivery has to keep. Absent: any delivery counts."
    )
    previous: SnapshotRef | None = Field(
        default=None,
        description="The newest snapshot of the same sources. Absent if there is none, or no gates.",
    )
    evaluators: tuple[EvaluatorSource, ...] = Field(
        default=(), description="Evaluators whose items are frozen together with the snapshot."
    )
    base: ImportedBase | None = Field(
        default=None, description="A checkpoint from outside to copy into the pool's store, to train from."
    )
    root_base: ImportedBase | None = Field(
        default=None,
        description="The checkpoint from outside that the base Expert descends from. Held-out text is tried with its "
        "tokenizer, which all its descendants have. Absent if there is none, or if `baseArtefact` is known.",
    )
    base_artefact: ArtefactRef | None = Field(
        default=None,
        description="The revision of the base Expert that training will start from. Held-out text is tried with its "
        "tokenizer. Absent before the base Expert has a promoted revision, and if the base is no Expert.",
    )
    preset: str | None = Field(
        default=None,
        description="The preset that is trained instead of a base. The Job refuses it if it cannot see a segment.",
    )
    context_tokens: int | None = Field(
        default=None,
        description="Tokens per training sequence. The Job refuses a number that is too small for a segment. Absent: as "
        "many as the base can see.",
    )


class Rehearsal(Format):
    """How a revision is trained that specialises again: on text that is new, with text from before mixed in."""

    share: float = Field(
        ge=0,
        lt=1,
        description="Share of the Expert's own text in every batch that is rehearsed. The rest is new text: text of the "
        "newest snapshot that is neither in `rehearsed` nor in `known`.",
    )
    rehearsed: SnapshotRef = Field(
        description="Snapshot whose text is rehearsed: the Expert's first one, from which its anchor was held out."
    )
    known: SnapshotRef = Field(
        description="Newest snapshot that the parent was trained on before its text began to drift. Its text is not new."
    )
    max_steps: int = Field(
        ge=1, description="Largest number of optimizer steps, in place of training.maxSteps."
    )
    max_epochs: float = Field(
        gt=0,
        description="Largest number of passes over the new text, in place of training.maxEpochs. The smaller of the two "
        "limits holds.",
    )
    rate_share: float = Field(
        gt=0,
        le=1,
        description="Peak learning rate, as a share of training.learningRate. A smaller one forgets less.",
    )

    def identity(self) -> dict[str, object]:
        """Return what it changes of the weights: where the snapshots are is left out."""
        return {
            "share": self.share,
            "rehearsed": self.rehearsed.digest,
            "known": self.known.digest,
            "maxSteps": self.max_steps,
            "maxEpochs": self.max_epochs,
            "rateShare": self.rate_share,
        }


class TrainJob(Format):
    """Train one revision, from a parent artefact or from a preset."""

    kind: Literal["train"] = "train"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    expert: ExpertRef = Field(description="The Expert that is trained.")
    revision: str = Field(description="Name of the ExpertRevision.")
    attempt: int = Field(
        ge=1,
        description="Number of the attempt. Every attempt after the first resumes from the last good checkpoint.",
    )
    inputs_digest: Digest = Field(
        description="Identity of the revision, which names its folder in the store."
    )
    parent: ArtefactRef | None = Field(
        default=None, description="Artefact to train from. Absent if a preset is trained."
    )
    preset: str | None = Field(default=None, description="Preset to initialise if there is no parent.")
    base: ArtefactRef | None = Field(
        default=None,
        description="Artefact that losses compare the model with: the pinned revision of the Expert's base. "
        "Absent: the parent.",
    )
    data: SnapshotRef = Field(description="Snapshot to train on.")
    rehearsal: Rehearsal | None = Field(
        default=None,
        description="Which text of the snapshot counts as new, what is mixed in, and how long to train. Absent: all of the "
        "snapshot's text is read alike, for as long as training says.",
    )
    training: TrainingSpec = Field(description="How to train.")
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature to write into generation_config.json. It changes no weights.",
    )
    seed: int = Field(description="Seed of the initialisation and of the order of batches.")
    expert_parallelism: int = Field(
        default=1,
        ge=1,
        description="Number of processes that share the in-layer experts of each layer between them. It changes how the "
        "Job runs and is not part of the revision's identity.",
    )


class Comparison(Format):
    """One comparison that the promotion gate asks for."""

    holdout: HoldoutRef = Field(description="The holdout to compare on.")
    role: Literal["anchor", "window"] = Field(
        description="Which of the Expert's holdouts it is: the first (`anchor`) or the newest (`window`)."
    )
    uses: int = Field(
        default=1,
        ge=1,
        description="Number of decisions that use this holdout, including this one. It sets the error rate alpha.",
    )


class EvaluateJob(OnSegments):
    """Fill the missing cells of the matrix, and compute scores, differences and intervals."""

    kind: Literal["evaluate"] = "evaluate"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    expert: ExpertRef = Field(description="The Expert whose revision is evaluated.")
    revision: str = Field(description="Name of the ExpertRevision that is evaluated.")
    candidate: ArtefactRef = Field(description="Artefact of that revision.")
    current: ArtefactRef | None = Field(
        default=None, description="Artefact of the current revision. Absent if none is promoted."
    )
    base: ArtefactRef | None = Field(
        default=None, description="Pinned revision of the Expert's base. Absent for a preset."
    )
    comparisons: tuple[Comparison, ...] = Field(
        description="Comparisons to make: on the Expert's own anchor first, then on the newest window."
    )
    suite: tuple[HoldoutRef, ...] = Field(
        description="The frozen suite: the anchors of all domains, including the Expert's own."
    )
    tasks: tuple[TasksRef, ...] = Field(
        default=(), description="Items of the evaluators that the Expert asks for."
    )

    @property
    def models(self) -> list[ArtefactRef]:
        """Return the models that are compared, the candidate first."""
        return [model for model in (self.candidate, self.current, self.base) if model]

    @property
    def contamination(self) -> Contamination | None:
        """Return `Unknown` if any compared model may have seen held-out text that its ancestry does not list."""
        return next((model.contamination for model in self.models if model.contamination), None)

    @property
    def opponent(self) -> ArtefactRef | None:
        """Return the model that answers the same items as the candidate; None for a first revision of a preset."""
        return self.current or self.base

    @property
    def against(self) -> Literal["current", "base"]:
        """Return which of the two the opponent is."""
        return "current" if self.current else "base"


class Grading(Format):
    """Answers to an evaluator's items, and the grader that judges them."""

    evaluator: str = Field(description="Name of the evaluator in the pool.")
    grader: Grader = Field(description="The program that judges the answers.")


class GradeJob(Format):
    """Have graders judge the answers that an evaluation left open, and complete its report. Imports no torch."""

    kind: Literal["grade"] = "grade"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    expert: ExpertRef = Field(description="The Expert whose revision is evaluated.")
    revision: str = Field(description="Name of the ExpertRevision that is evaluated.")
    evaluation: RelativePath = Field(
        description="Folder of the evaluation to complete, relative to the pool's store."
    )
    report: Digest = Field(description="SHA-256 of the evaluation's report.json.")
    gradings: tuple[Grading, ...] = Field(
        description="What to judge. The answers of entry n are in folder n of MOE_GRADINGS."
    )


class DriftJob(OnSegments):
    """Measure a revision on the last windows of its Expert, against the anchor; fill the missing cells of the matrix."""

    kind: Literal["drift"] = "drift"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    expert: ExpertRef = Field(description="The Expert whose revision is measured.")
    model: ArtefactRef = Field(description="Artefact of the revision.")
    base: ArtefactRef = Field(
        description="The revision of the base that the first revision of its line was trained from."
    )
    anchor: HoldoutRef = Field(description="The Expert's first holdout.")
    newest: HoldoutRef = Field(
        description="The Expert's newest holdout. The windows before it are listed in the Expert's folder of the store."
    )
    suite: tuple[HoldoutRef, ...] = Field(
        default=(),
        description="Anchors of other domains, to find out which one the newest text is nearest to.",
    )
    tasks: tuple[TasksRef, ...] = Field(
        default=(), description="Newest items of the evaluators that the Expert asks for."
    )


class MatrixJob(OnSegments):
    """Fill the full matrix: every model on every holdout. Cells that exist are not computed again."""

    kind: Literal["matrix"] = "matrix"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    models: tuple[ArtefactRef, ...] = Field(
        description="Artefacts of the current revisions, without ancestry."
    )
    experts: tuple[ExpertRef, ...] = Field(description="The Experts of those revisions, in the same order.")
    suite: tuple[HoldoutRef, ...] = Field(description="The anchors of all domains.")
    trained_on: tuple[RelativePath, ...] = Field(
        default=(),
        max_length=MAX_TRAINED_ON,
        description="Folders of the snapshots that some of the models was trained on, relative to the pool's store: the text "
        "that is left out.",
    )


class DistillJob(OnSegments):
    """Fit the table of the Distilled strategy to the cells of the matrix. Imports no torch."""

    kind: Literal["distill"] = "distill"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    roster: tuple[ArtefactRef, ...] = Field(description="Artefacts of the revisions that should serve.")
    experts: tuple[ExpertRef, ...] = Field(description="The Experts of those revisions, in the same order.")
    suite: tuple[HoldoutRef, ...] = Field(description="Holdouts whose segments the table is fitted to.")


class ComposeJob(Format):
    """Make one checkpoint of the banks of several Experts on one base."""

    kind: Literal["compose"] = "compose"
    pool_uid: str = Field(description="UID of the pool's object, which names its folder in the store.")
    banks: tuple[ArtefactRef, ...] = Field(
        min_length=1, description="Artefacts of the banks, in the order in which they are stacked."
    )


AnyJob = SnapshotJob | TrainJob | EvaluateJob | GradeJob | DriftJob | MatrixJob | DistillJob | ComposeJob
JobConfig = Annotated[AnyJob, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(JobConfig)


def parse_job_config(text: str) -> AnyJob:
    """Return the config in a JSON text; raises pydantic.ValidationError that names the field."""
    return _ADAPTER.validate_json(text)
