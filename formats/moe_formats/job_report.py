"""What a Job found out: ``report.json`` in the store is the truth, the headline travels.

The headline is the container's termination message (at most 3 KiB): all that the operator needs to
decide, and the digest of the full report for everybody else. A score that could not be computed is
absent, with a reason under its name in ``absent``.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from moe_formats.format import Digest, Format
from moe_formats.paths import RelativePath

#: Exit codes of every command. A Job's pod failure policy fails at once on INPUT_ERROR.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_INPUT_ERROR = 64

#: Largest termination message, in bytes (the kubelet cuts at 4096 for all containers of a pod).
MAX_HEADLINE_BYTES = 3072


class Interval(Format):
    """An estimate with its 95 % interval (studentised bootstrap over clusters)."""

    value: float
    lower: float
    upper: float
    clusters: int | None = Field(default=None, description="Clusters it rests on.")


class Failure(Format):
    """Why a Job could not do what it was asked."""

    kind: Literal["failure"] = "failure"
    reason: str = Field(
        description="CamelCase, one of moe_formats.resources.reasons where a user can act on it."
    )
    message: str = Field(max_length=1500, description="The field or file, the value, the rule and the fix.")
    retryable: bool = Field(default=False, description="False: the same inputs fail again.")


class Window(Format):
    """One immutable holdout of an Expert."""

    path: RelativePath
    digest: Digest
    clusters: int
    segments: int


class TaskSet(Format):
    """The frozen items of an evaluator."""

    evaluator: str
    path: RelativePath
    digest: Digest
    items: int


class Accuracy(Format):
    """What a named evaluator found: the share of its items that the candidate gets right."""

    evaluator: str
    items: int
    accuracy: Interval
    difference: Interval | None = Field(
        default=None, description="Accuracy of the candidate less that of what it is compared with, paired."
    )
    against: Literal["current", "base"] | None = None


class SnapshotHeadline(Format):
    """What a snapshot holds."""

    kind: Literal["snapshot"] = "snapshot"
    report: Digest
    path: RelativePath
    digest: Digest = Field(description="The data digest.")
    documents: int = Field(description="Documents kept for training.")
    train_bytes: int
    dropped: dict[str, int] = Field(default_factory=dict, description="Documents dropped, by reason.")
    anchor: Window = Field(description="The first window of the Expert.")
    newest: Window | None = Field(default=None, description="The newest window, if it is not the anchor.")
    tasks: tuple[TaskSet, ...] = Field(default=(), description="Items of the evaluators that were asked for.")


class TrainHeadline(Format):
    """What a training run made."""

    kind: Literal["train"] = "train"
    report: Digest
    path: RelativePath = Field(description="The artefact's folder.")
    digest: Digest = Field(description="The artefact's digest: SHA-256 of its manifest.")
    steps: int
    tokens: int
    final_loss: float = Field(
        description="Mean training cross-entropy of the last validation interval, nats per token."
    )
    validation_bits_per_byte: float | None = None
    parameters: int = Field(description="Weights that were trained.")
    resumed_from: int = Field(default=0, description="Step of the checkpoint it resumed from; 0: none.")
    stopped_at: int | None = Field(
        default=None,
        description="Where a run that may end early ended; its weights are those of `steps`, the best validation.",
    )
    load_max_violation: float | None = Field(
        default=None, description="MaxVio of all slots of the last validation interval, largest over layers."
    )


class Decision(Format):
    """One comparison of candidate and current on a holdout that is clean for both.

    ``interval`` is the mean over segments of ln(b_candidate / b_current), negative is better, with the usual
    95 %. ``upper`` is the one-sided bound at confidence 1 - alpha that the gate reads.
    """

    role: Literal["anchor", "window"]
    holdout: Digest
    uses: int
    alpha: float
    interval: Interval
    upper: float
    against: Literal["current", "base", "unigram"] = Field(description="What stood for current.")


class Ungraded(Format):
    """Answers that graders have still to judge before the evidence is whole."""

    path: RelativePath = Field(description="The evaluation's folder.")
    evaluators: tuple[str, ...]


class EvaluateHeadline(Format):
    """The evidence that the promotion gate reads."""

    kind: Literal["evaluate"] = "evaluate"
    report: Digest
    decisions: tuple[Decision, ...]
    delta: float = Field(description="max(0.5 %, twice the noise floor).")
    noise_floor: float
    bits_per_byte: Interval | None = Field(default=None, description="On the own anchor.")
    gain: Interval | None = Field(default=None, description="Mean ln(b_base / b_expert) on the own anchor.")
    specialization_score: Interval | None = None
    forgetting: Interval | None = Field(
        default=None, description="Mean over other domains of b_expert - b_base."
    )
    next_byte_accuracy: float | None = None
    next_byte_interval: Interval | None = Field(default=None, description="The same, with its interval.")
    accuracies: tuple[Accuracy, ...] = Field(default=(), description="One an evaluator, where measured.")
    ungraded: Ungraded | None = Field(
        default=None, description="Set where a grade Job has still to finish the report."
    )
    row: dict[str, float] = Field(
        default_factory=dict,
        description="The candidate's row of the matrix: bits per byte by domain of the suite.",
    )
    base_row: dict[str, float] = Field(default_factory=dict, description="The base's row, likewise.")
    absent: dict[str, str] = Field(
        default_factory=dict, description="Score name to the reason for its absence."
    )
    contamination: Literal["Unknown"] | None = Field(
        default=None,
        description="Set where not all is known that some model that was compared was trained on.",
    )
    suite: Digest = Field(description="Digest of the frozen suite.")


class DistillHeadline(Format):
    """The table of the Distilled strategy, and how well it routes (cross-fitted by cluster)."""

    kind: Literal["distill"] = "distill"
    report: Digest
    path: RelativePath
    digest: Digest
    routed_bits_per_byte: float
    oracle_bits_per_byte: float
    random_bits_per_byte: float
    accuracy: float = Field(description="Share of segments sent to the Expert that codes them best.")
    posterior_bits_per_byte: float | None = Field(
        default=None, description="What Posterior would have cost on the same segments."
    )
    posterior_temperature: float | None = Field(
        default=None, description="For RoutingPolicy.temperature; fitted by likelihood."
    )


class ComposeHeadline(Format):
    """The checkpoint that several banks make on their base."""

    kind: Literal["compose"] = "compose"
    report: Digest
    path: RelativePath
    digest: Digest
    in_layer_experts: int = Field(description="Of each mixture layer.")


Headline = Annotated[
    SnapshotHeadline | TrainHeadline | EvaluateHeadline | DistillHeadline | ComposeHeadline | Failure,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[
    SnapshotHeadline | TrainHeadline | EvaluateHeadline | DistillHeadline | ComposeHeadline | Failure
] = TypeAdapter(Headline)


def parse_headline(
    text: str,
) -> SnapshotHeadline | TrainHeadline | EvaluateHeadline | DistillHeadline | ComposeHeadline | Failure:
    """Return the headline in a termination message; raises pydantic.ValidationError if it is none."""
    return _ADAPTER.validate_json(text)


class Progress(Format):
    """What rank 0 answers on ``/progress`` while it trains. It informs and decides nothing."""

    step: int
    max_steps: int
    loss: float | None = None
    bits_per_byte: float | None = Field(default=None, description="Of the newest validation.")
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    load_max_violation: float | None = Field(
        default=None, description="MaxVio of the newest step, largest over layers with a router."
    )
    load_entropy: float | None = Field(
        default=None, description="Entropy of the load over ln E, smallest over layers."
    )
    dead_experts: int | None = Field(
        default=None, description="In-layer experts without a slot, over all layers."
    )
    drop_rate: float | None = Field(
        default=None, description="Share of slots that were dropped, largest over layers."
    )
    router_logit_rms: float | None = Field(
        default=None, description="Root mean square of router logits, largest over layers."
    )
