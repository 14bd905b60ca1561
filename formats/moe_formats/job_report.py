"""What a Job found out, as it reaches the operator: the headline.

``report.json`` in the store has everything. The headline is the container's termination message, at most 3 KiB: what
the operator needs to decide, and the digest of the full report. What a headline says of a holdout, a score or a
comparison is written into the status of an Expert or a revision as it is, so those models serve both.

A score that could not be computed is absent, and ``absent`` has the reason under the score's name.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.config import JsonDict

from moe_formats.format import Digest, Format
from moe_formats.job_config import DATA_DIGEST, Contamination
from moe_formats.names import EvaluatorName
from moe_formats.paths import RelativePath
from moe_formats.routing_policy import Familiar

#: Exit codes of every command. A Job's pod failure policy fails the Job at once on INPUT_ERROR.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_INPUT_ERROR = 64

#: Largest termination message, in bytes. (The kubelet cuts at 4096 for all containers of a pod together.)
MAX_HEADLINE_BYTES = 3072


class Interval(Format):
    """An estimate with its 95 % interval, from a studentised bootstrap over clusters of near-duplicate documents."""

    value: float = Field(description="Point estimate, in the unit of the score.")
    lower: float = Field(description="Lower end of the 95 % interval.")
    upper: float = Field(description="Upper end of the 95 % interval.")
    clusters: int | None = Field(
        default=None,
        description="Number of clusters of near-duplicate documents, or of items, that the estimate is computed from. "
        "Absent if it was not recorded.",
    )


class Window(Format):
    """One immutable holdout of an Expert: documents that are kept out of training."""

    path: RelativePath = Field(description="Folder of the holdout, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the holdout's manifest.")
    clusters: int = Field(description="Number of clusters of near-duplicate documents in the holdout.")
    segments: int = Field(description="Number of segments that models are scored on.")


#: Description of the holdout that all revisions of an Expert are compared on.
ANCHOR = "The first holdout of the Expert. While it has fewer than 20 clusters, the next holdout replaces it."


def _without_pattern(schema: JsonDict) -> None:
    """Leave the pattern out, as the CRD of Expert always had it: a CRD is never tightened."""
    schema.pop("pattern", None)


class TaskSet(Format):
    """The items of an evaluator, frozen with a snapshot."""

    evaluator: EvaluatorName = Field(description="Name of the evaluator in the pool.")
    path: RelativePath = Field(description="Folder of the items, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the items' manifest.", json_schema_extra=_without_pattern)
    items: int = Field(description="Number of items that are put to a revision.")


class Accuracy(Format):
    """What an evaluator found about a revision."""

    evaluator: EvaluatorName = Field(description="Name of the evaluator in the pool.")
    items: int = Field(description="Number of items that were put to the revision.")
    accuracy: Interval = Field(description="Share of the items that the revision gets right, 0 to 1.")
    difference: Interval | None = Field(
        default=None,
        description="Accuracy of the revision minus that of what it was compared with, on the same items. Absent if it "
        "was compared with nothing.",
    )
    against: Literal["current", "base"] | None = Field(
        default=None,
        description="What the revision was compared with: the current revision (`current`) or, for a first revision, the "
        "base (`base`). Absent if it was compared with nothing.",
    )


class Decision(Format):
    """One comparison that the promotion gate reads, on clusters of a holdout that neither side was trained on."""

    role: Literal["anchor", "window"] = Field(
        description="Holdout that was used: the Expert's first (`anchor`) or its newest (`window`)."
    )
    holdout: Digest = Field(description="SHA-256 of the holdout's manifest.")
    uses: int = Field(description="Number of decisions that have used this holdout, including this one.")
    alpha: float = Field(
        description="Error rate of the one-sided bound; it falls with each use of the holdout."
    )
    against: Literal["current", "base", "unigram"] = Field(
        description="What the candidate was compared with: the current revision (`current`); for a first revision its base "
        "(`base`), or a model of single bytes (`unigram`) if it starts from a preset."
    )
    interval: Interval = Field(
        description="Mean over segments of ln(b_candidate / b_against), where b is bits per byte. Negative means that "
        "the candidate is better."
    )
    upper: float = Field(
        description="One-sided upper bound of that mean at confidence 1 - alpha: the number that the gate reads."
    )


class Failure(Format):
    """Why a Job could not do what it was asked."""

    kind: Literal["failure"] = "failure"
    reason: str = Field(
        description="A CamelCase word, one of moe_formats.resources.reasons if a user can act on it."
    )
    message: str = Field(max_length=1500, description="The field or file, the value, the rule and the fix.")
    retryable: bool = Field(
        default=False, description="Whether another attempt with the same inputs may succeed."
    )


class Unreadable(Format):
    """Held-out segments that the tokenizer of a checkpoint from outside does not give back as they were."""

    segments: int = Field(
        description="Number of segments that are not measured for that reason. 0 if the tokenizer could not be tried."
    )
    of: int = Field(description="Number of segments that would be measured otherwise.")
    why: str = Field(
        max_length=300, description="What the tokenizer does to the text, or why it could not be tried."
    )


#: What the field of that name says.
UNREADABLE = (
    "Held-out segments of the newest holdout that the base's tokenizer does not give back as they were. They are not "
    "measured. Absent if there are none, or if the base does not descend from a checkpoint from outside."
)


class SnapshotHeadline(Format):
    """What a snapshot Job stored."""

    kind: Literal["snapshot"] = "snapshot"
    report: Digest = Field(description="SHA-256 of report.json.")
    path: RelativePath = Field(description="Folder of the snapshot, relative to the pool's store.")
    digest: Digest = Field(description=DATA_DIGEST)
    documents: int = Field(description="Number of documents that are kept for training.")
    train_bytes: int = Field(description="Size of the training text, in bytes.")
    dropped: dict[str, int] = Field(
        default_factory=dict, description="Number of documents dropped, by reason."
    )
    anchor: Window = Field(description=ANCHOR)
    newest: Window | None = Field(
        default=None, description="The newest holdout of the Expert. Absent if it is the anchor."
    )
    tasks: tuple[TaskSet, ...] = Field(
        default=(), description="Items of the evaluators that the Expert asks for."
    )
    unreadable: Unreadable | None = Field(default=None, description=UNREADABLE)


class TrainHeadline(Format):
    """What a training Job stored."""

    kind: Literal["train"] = "train"
    report: Digest = Field(description="SHA-256 of report.json.")
    path: RelativePath = Field(description="Folder of the artefact, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the artefact's manifest: the artefact's digest.")
    steps: int = Field(description="Optimizer step that the weights are from.")
    tokens: int = Field(description="Number of tokens trained on.")
    final_loss: float = Field(
        description="Mean training cross-entropy over the last validation interval that has one, in nats per token."
    )
    validation_bits_per_byte: float | None = Field(
        default=None, description="Bits per byte of the last validation."
    )
    parameters: int = Field(description="Number of weights that were trained.")
    resumed_from: int = Field(
        default=0, description="Step of the checkpoint that the attempt resumed from; 0 if from none."
    )
    stopped_at: int | None = Field(
        default=None,
        description="Step at which a run with early stop ended. Its weights are those of `steps`, the best validation.",
    )
    load_max_violation: float | None = Field(
        default=None,
        description="Largest MaxVio of any layer, over all slots of the last validation interval.",
    )


class Ungraded(Format):
    """Answers that graders still have to judge before the evidence is complete."""

    path: RelativePath = Field(description="Folder of the evaluation, relative to the pool's store.")
    evaluators: tuple[str, ...] = Field(description="Names of the evaluators whose answers are not judged.")


class EvaluateHeadline(Format):
    """The evidence that the promotion gate reads."""

    kind: Literal["evaluate"] = "evaluate"
    report: Digest = Field(description="SHA-256 of report.json.")
    decisions: tuple[Decision, ...] = Field(description="The comparisons that the gate asked for.")
    delta: float = Field(
        description="Smallest difference of ln(bits per byte) that counts: 0.005, or twice the noise floor if that is larger."
    )
    noise_floor: float = Field(
        description="Difference of ln(bits per byte) between two scorings of the same weights; 0 on a CPU."
    )
    bits_per_byte: Interval | None = Field(default=None, description="Bits per byte on the own anchor.")
    gain: Interval | None = Field(
        default=None, description="Mean of ln(b_base / b_expert) on the own anchor."
    )
    specialization_score: Interval | None = Field(
        default=None, description="Specialization score: 0.5 is none, 1 is complete."
    )
    forgetting: Interval | None = Field(
        default=None, description="Mean of b_expert - b_base over the other domains, in bits per byte."
    )
    next_byte_accuracy: float | None = Field(
        default=None, description="Share of the own anchor's bytes that were the model's most probable byte."
    )
    next_byte_interval: Interval | None = Field(
        default=None, description="Next-byte accuracy with its 95 % interval."
    )
    accuracies: tuple[Accuracy, ...] = Field(
        default=(), description="What the named evaluators found, one entry per evaluator."
    )
    ungraded: Ungraded | None = Field(
        default=None, description="Answers that a grade Job still has to judge. Absent if there are none."
    )
    row: dict[str, float] = Field(
        default_factory=dict,
        description="The candidate's row of the matrix: bits per byte by domain of the suite.",
    )
    base_row: dict[str, float] = Field(
        default_factory=dict,
        description="The base's row of the matrix: bits per byte by domain of the suite.",
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="Names of scores that could not be computed, with the reason."
    )
    contamination: Contamination | None = Field(
        default=None,
        description="`Unknown` if it is not known what a compared model was trained on, so that it may have seen "
        "held-out text. Absent if everything is known.",
    )
    suite: Digest = Field(description="Digest of the frozen suite.")


class Change(Format):
    """How much a mean over the newest windows differs from that over the anchor."""

    interval: Interval = Field(description="The difference with its two-sided 95 % interval.")
    lower_bound: float = Field(description="One-sided lower bound at an error rate of 0.01.")


class DriftHeadline(Format):
    """How a revision does on the last windows of its Expert, against the anchor."""

    kind: Literal["drift"] = "drift"
    report: Digest = Field(description="SHA-256 of report.json.")
    windows: tuple[Digest, ...] = Field(description="SHA-256 of the windows' manifests, the oldest first.")
    clusters: int = Field(description="Number of clusters of near-duplicate documents in these windows.")
    drift: Change | None = Field(
        default=None, description="Mean of ln(b_base / b_expert) over the anchor minus that over the windows."
    )
    difficulty: Change | None = Field(
        default=None, description="Mean of ln b_base over the windows minus that over the anchor."
    )
    gain: Interval | None = Field(default=None, description="Mean of ln(b_base / b_expert) over the windows.")
    nearest_domain: str | None = Field(
        default=None, description="Domain of the suite whose anchor the windows' text resembles most."
    )
    accuracies: tuple[Accuracy, ...] = Field(
        default=(), description="What the named evaluators find of the revision by their newest items."
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="Names of numbers that could not be computed, with the reason."
    )


class MatrixHeadline(Format):
    """The full matrix of a pool."""

    kind: Literal["matrix"] = "matrix"
    path: RelativePath = Field(description="File of the matrix, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the file.")
    cells: int = Field(description="Number of cells: models times holdouts.")
    absent: int = Field(description="Number of cells whose bits per byte could not be computed.")


class DistillHeadline(Format):
    """The table of the Distilled strategy, and how well it routes (cross-fitted by cluster)."""

    kind: Literal["distill"] = "distill"
    report: Digest = Field(description="SHA-256 of report.json.")
    path: RelativePath = Field(description="File of the table, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the table's file.")
    routed_bits_per_byte: float = Field(description="Bits per byte if the table routes every segment.")
    oracle_bits_per_byte: float = Field(
        description="Bits per byte if every segment goes to the Expert that codes it in the fewest."
    )
    random_bits_per_byte: float = Field(description="Bits per byte if every segment goes to a random Expert.")
    accuracy: float = Field(
        description="Share of segments, 0 to 1, that the table sends to the Expert that codes them in the fewest bits."
    )
    posterior_bits_per_byte: float | None = Field(
        default=None, description="Bits per byte if Posterior routes every segment."
    )
    posterior_temperature: float | None = Field(
        default=None, description="Value for RoutingPolicy.temperature, fitted by likelihood."
    )
    familiar: Familiar | None = Field(
        default=None, description="How prompts of the pool's own domains look. Absent: it was not measured."
    )


class ComposeHeadline(Format):
    """The checkpoint that a compose Job made of several banks on their base."""

    kind: Literal["compose"] = "compose"
    report: Digest = Field(description="SHA-256 of report.json.")
    path: RelativePath = Field(description="Folder of the checkpoint, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the checkpoint's manifest.")
    in_layer_experts: int = Field(description="Number of in-layer experts in each mixture layer.")


AnyHeadline = (
    SnapshotHeadline
    | TrainHeadline
    | EvaluateHeadline
    | DriftHeadline
    | MatrixHeadline
    | DistillHeadline
    | ComposeHeadline
    | Failure
)
Headline = Annotated[AnyHeadline, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyHeadline] = TypeAdapter(Headline)


def parse_headline(text: str) -> AnyHeadline:
    """Return the headline in a termination message; raises pydantic.ValidationError if it is none."""
    return _ADAPTER.validate_json(text)


class Progress(Format):
    """What the first process of a training run answers on ``/progress``. It is shown to people; nothing is decided by it."""

    step: int = Field(description="Optimizer steps done.")
    max_steps: int = Field(description="Optimizer steps that the run takes.")
    loss: float | None = Field(
        default=None,
        description="Training cross-entropy of the newest step, in nats per token. Absent if no token of it is learnt.",
    )
    bits_per_byte: float | None = Field(default=None, description="Bits per byte of the newest validation.")
    tokens_per_second: float | None = Field(default=None, description="Tokens trained on per second.")
    eta_seconds: float | None = Field(default=None, description="Estimated seconds until the run ends.")
    load_max_violation: float | None = Field(
        default=None, description="Largest MaxVio of any layer with a router, at the newest step."
    )
    load_entropy: float | None = Field(
        default=None, description="Smallest entropy of the load of any layer, divided by ln E."
    )
    dead_experts: int | None = Field(
        default=None, description="Number of in-layer experts that got no slot, over all layers."
    )
    drop_rate: float | None = Field(
        default=None, description="Largest share of slots that was dropped in any layer."
    )
    router_logit_rms: float | None = Field(
        default=None, description="Largest root mean square of the router's logits in any layer."
    )
