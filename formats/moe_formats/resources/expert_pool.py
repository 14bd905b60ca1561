"""ExpertPool: Experts that are measured on the same text and serve together behind one gateway."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.names import Name
from moe_formats.resources.analysis import PoolAnalysis
from moe_formats.resources.base import CustomResource, ShortText, cel
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.lifecycle import Lifecycle, LifecycleStatus
from moe_formats.resources.pipelines import PipelinesStatus
from moe_formats.routing_policy import (
    BodyBytes,
    Concurrency,
    Familiar,
    KeyLimits,
    Margin,
    Origin,
    ScoringSeconds,
    Seconds,
    StrategyName,
    Tokens,
)
from moe_formats.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes


class Storage(Format):
    """The claim that holds the pool's snapshots, checkpoints, weights and evidence."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.size) != has(self.claim)",
                "storage needs exactly one of size and claim: keep one and remove the other",
            ),
            (
                "has(self.claim) == has(oldSelf.claim) && (!has(self.claim) || self.claim == oldSelf.claim)",
                "storage.claim is immutable, since all weights and evidence live there: create another pool",
            ),
            (
                "has(self.storageClass) == has(oldSelf.storageClass) && self.accessMode == oldSelf.accessMode"
                " && (!has(self.storageClass) || self.storageClass == oldSelf.storageClass)",
                "storage.storageClass and accessMode are immutable, as a claim's are: create another pool",
            ),
            (
                "!has(self.size) || !has(oldSelf.size)"
                " || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
                "storage.size cannot shrink, since a claim cannot: give the old size or more",
            ),
        )
    )

    size: str | None = Field(
        default=None,
        max_length=20,
        pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$",
        description="Size of a claim that the operator creates, for example `20Gi`. It cannot be lowered. Raising it does "
        "not enlarge a claim that exists: enlarge the claim itself, if its StorageClass allows that. Give either this or "
        "claim. Default: none.",
    )
    claim: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Existing PersistentVolumeClaim in this namespace to use. It needs the label "
        "`moe-operator.dev/use: store`. Several pools may name the same claim; each keeps its files in a folder of its own. "
        "Give either this or size. Immutable. Default: none.",
    )
    storage_class: str | None = Field(
        default=None,
        max_length=253,
        description="StorageClass of the claim that the operator creates. Immutable. Default: the cluster's default class.",
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="Access mode of the claim that the operator creates. `ReadWriteMany` lets Jobs and servers run on several "
        "nodes at once; the StorageClass must support it. Immutable.",
    )


#: When Experts are measured besides the evaluation of new revisions.
Schedule = Literal["never", "newWindow", "daily", "weekly"]


class Evaluation(Format):
    """How Experts of the pool are measured. Holdout and segments never change, so that all scores can be compared."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.holdout == oldSelf.holdout && self.salt == oldSelf.salt",
                "evaluation.holdout and evaluation.salt are immutable, since every score depends on them: create another pool",
            ),
            (
                "self.segmentBytes == oldSelf.segmentBytes",
                "evaluation.segmentBytes is immutable, since every score is of segments of that size: create another pool",
            ),
        )
    )

    holdout: float = Field(
        default=0.1,
        gt=0,
        le=0.5,
        description="Share of the data that is held out of training to measure Experts on, counted in clusters of "
        "near-duplicate documents. Immutable.",
    )
    salt: str = Field(
        default="moe",
        max_length=64,
        description="Text that is mixed into the hash that picks the held-out clusters. Immutable.",
    )
    segment_bytes: SegmentBytes = Field(
        default=DEFAULT_SEGMENT_BYTES,
        description="Size of the segments that are scored, in bytes; each is scored after at most 128 bytes of text before "
        "it. 256 needs bases that see 384 tokens. 3968 also measures what a long context is worth and needs bases that "
        "see 4096 tokens, which no preset does. Immutable.",
    )
    evaluators: list[Evaluator] = Field(
        default_factory=list,
        max_length=16,
        description="Named measures of tasks whose answers can be checked. Experts ask for them by name. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    schedule: Schedule = Field(
        default="newWindow",
        description="When Experts are measured besides the evaluation of new revisions. `newWindow`: an Expert's drift, "
        "whenever it has a new window or another current revision, in a Job that reuses what evaluations have scored. `daily` "
        "and `weekly`: drift on a new window at most once per day or week, and the full matrix, every current revision on the "
        "anchor of every domain, as often if something changed. `never`: nothing.",
    )


#: How much more probable an Expert is before the prompt is seen.
Weight = Annotated[float, Field(gt=0, le=1000)]


class Routing(Format):
    """How the gateway chooses an Expert for a request."""

    strategy: StrategyName = Field(
        default="Distilled",
        description="How the gateway chooses. `Distilled`: a small table scores the prompt in the gateway; the operator fits "
        "it to how well the Experts did on held-out text. `Posterior`: every Expert scores the prompt, which is the "
        "most accurate and takes one forward pass per Expert. Default: Distilled; until its table exists, Posterior is "
        "used.",
    )
    fallback: Name | None = Field(
        default=None,
        description="Expert that answers requests that cannot be scored, and routed requests for whose Expert no server "
        "is ready or answers. Default: the first Expert by name that is ready for requests that cannot be scored, and none "
        "for the others.",
    )
    prior: dict[str, Weight] | None = Field(
        default=None,
        max_length=64,
        description="Weights of Experts before the prompt is seen, by name, for strategy Posterior: with 2, an Expert is taken "
        "to be twice as probable as one with 1. A name that is no routed Expert is ignored. Default: 1 for each Expert.",
    )
    posterior_timeout_seconds: ScoringSeconds | None = Field(
        default=None,
        description="Seconds that Experts have to score a prompt, for strategy Posterior. One that takes longer is not chosen. "
        "Default: 2.",
    )
    stickiness_margin: Margin | None = Field(
        default=None,
        description="Probability, 0 to 1, by which another Expert must be ahead for a conversation to move to it. With 0, it "
        "always moves to the most probable one; with 1, it never moves. Default: 0.3.",
    )


#: Names of Secrets that hold the API keys of gateways.
SECRET_OF_KEYS = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?[.-])?gateway-keys$"


class KeysFrom(Format):
    """The Secret with the API keys that clients need."""

    secret: str = Field(
        max_length=253,
        pattern=SECRET_OF_KEYS,
        description="Name of a Secret in the pool's namespace. The name has to be `gateway-keys` or end with `-gateway-keys`: by "
        "that, whoever made the Secret says what it is for, and no pool can mount any other.",
    )
    key: str = Field(
        default="keys",
        max_length=253,
        pattern=r"^[-._a-zA-Z0-9]+$",
        description="Key of the Secret under which the API keys are, one per line. `#` begins a comment.",
    )


class GatewayLimits(Format):
    """What the gateway accepts. Changed limits hold from the next request on; no gateway restarts."""

    max_body_bytes: BodyBytes | None = Field(
        default=None,
        description="Largest body of a request, in bytes. A larger one is answered with status 413. Default: what the chart's "
        "values say, or 1048576.",
    )
    max_tokens: Tokens | None = Field(
        default=None,
        description="Largest max_tokens of a request. A larger one is answered with status 400; without max_tokens, an answer "
        "ends there. Default: what the chart's values say, or 4096.",
    )
    max_concurrency: Concurrency | None = Field(
        default=None,
        description="Largest number of requests at the same time in one gateway pod. Any more are answered with status 429. "
        "Default: what the chart's values say, or 256.",
    )
    timeout_seconds: Seconds | None = Field(
        default=None,
        description="Longest wait for the next byte of an answer, in seconds. After it, the answer is status 504. Default: what "
        "the chart's values say, or 120.",
    )
    per_key: KeyLimits | None = Field(
        default=None,
        description="What one API key may take of one gateway pod. Default: what the chart's values say, or no limits but "
        "those of all requests together.",
    )


class GatewaySpec(Format):
    """The gateway through which the pool's requests come."""

    replicas: int = Field(
        default=1, ge=0, le=64, description="Number of gateway pods. With 0, no gateway runs."
    )
    keys_from: KeysFrom | None = Field(
        default=None,
        description="The Secret with the API keys of clients. Every request below `/v1` then needs one of them as a bearer "
        "token. Changed keys hold within the minute or so that a kubelet takes to pass them on; no gateway restarts. Default: "
        "what the chart's values say, or no keys, so everybody who can reach the gateway may send requests.",
    )
    limits: GatewayLimits | None = Field(
        default=None,
        description="What the gateway accepts. Default: what the chart's values say.",
    )
    allowed_origins: list[Origin] | None = Field(
        default=None,
        max_length=32,
        description="Origins whose pages in a browser may send requests and read answers (CORS), for example "
        "`https://chat.example.org`. `*` allows all. Default: what the chart's values say, or none.",
    )


class Budget(Format):
    """How much the pool may run at the same time."""

    training_jobs: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="Largest number of training, evaluate, drift and matrix Jobs that run at the same time. Snapshot, grade and "
        "distill Jobs are not counted. Ignored if the chart names a Kueue queue, which then decides when Jobs start.",
    )
    training_order: Literal["FirstCome", "Adaptive"] = Field(
        default="FirstCome",
        description="Which training Job starts first if more wait than may run. `FirstCome`: the one that was created first. "
        "`Adaptive`: the one with the largest expected gain per device-second, which is what the Expert's last refresh gained "
        "per new byte, times its new bytes, over what that refresh took. Jobs for which nothing was measured yet, and those that "
        "have waited for a week, come before all others, in the order of creation. Ignored if the chart names a Kueue queue.",
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Largest sum of serving.replicas of all Experts. An Expert that exceeds it, in the order of creation, "
        "is stalled: it starts no new work. While one revision takes over from another, both have servers, which are "
        "counted once. Default: no limit.",
    )


class ExpertPoolSpec(Format):
    """What the user asks of the pool."""

    storage: Storage = Field(description="The claim that holds snapshots, checkpoints, weights and evidence.")
    evaluation: Evaluation = Field(
        default_factory=Evaluation,
        description="How Experts of the pool are measured. Default: the default of every field.",
    )
    routing: Routing = Field(
        default_factory=Routing,
        description="How the gateway chooses an Expert for a request. Default: by the Distilled strategy.",
    )
    gateway: GatewaySpec = Field(
        default_factory=GatewaySpec,
        description="The gateway through which the pool's requests come. Default: one pod.",
    )
    budget: Budget = Field(
        default_factory=Budget,
        description="How much the pool may run at the same time. Default: two Jobs, and any number of servers.",
    )
    lifecycle: Lifecycle = Field(
        default_factory=Lifecycle,
        description="What the operator may do by itself with the Experts of the pool. Default: it proposes, and people "
        "approve.",
    )
    paused: bool = Field(
        default=False,
        description="If `true`, no new work starts in the whole pool. Running Jobs finish, and all servers keep serving.",
    )


class TableStatus(Format):
    """The table of the Distilled strategy, and how well it routes."""

    path: str = Field(max_length=512, description="File of the table, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the table's file.")
    roster: str = Field(
        max_length=71,
        description="Digest of what the table was made from: the revisions that should serve, and the holdouts that all "
        "of them were measured on.",
    )
    experts: list[Name] = Field(
        default_factory=list, max_length=64, description="Names of the Experts that the table chooses among."
    )
    accuracy: float = Field(
        description="Share of held-out segments, 0 to 1, that the table sends to the Expert that codes them in the fewest "
        "bits per byte."
    )
    routed_bits_per_byte: float = Field(description="Bits per byte if the table routes every segment.")
    oracle_bits_per_byte: float = Field(
        description="Bits per byte if every segment goes to the Expert that codes it in the fewest."
    )
    random_bits_per_byte: float = Field(description="Bits per byte if every segment goes to a random Expert.")
    posterior_bits_per_byte: float | None = Field(
        default=None,
        description="Bits per byte if the Posterior strategy routes every segment. Absent if the distill Job did not "
        "report it.",
    )
    familiar: Familiar | None = Field(
        default=None,
        description="How prompts of the pool's own domains look, by which gateways count requests as unmet. Absent if the "
        "distill Job did not report it.",
    )
    posterior_temperature: float | None = Field(
        default=None,
        description="Number that the Posterior strategy divides log-likelihoods by, fitted by likelihood. Absent if the "
        "distill Job did not report it; 1 is used then.",
    )


class RoutingStatus(Format):
    """What the gateways do, and which routing policy they have."""

    strategy: str = Field(default="", max_length=40, description="Strategy of the newest routing policy.")
    digest: Digest | None = Field(
        default=None, description="Digest of the newest routing policy. Absent before an Expert serves."
    )
    reported_by: int = Field(
        default=0, description="Number of gateway pods that have reported that they use the newest policy."
    )
    revisions: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=64,
        description="For each Expert, the revision that every ready gateway is known to send its requests to.",
    )
    table: TableStatus | None = Field(
        default=None,
        description="The newest table of the Distilled strategy, and how well it routes. Absent before there is one.",
    )
    url: str | None = Field(
        default=None,
        max_length=512,
        description="Address of the gateway inside the cluster. Absent before an Expert serves.",
    )


class MatrixStatus(Format):
    """The full matrix: bits per byte of every current revision on the anchor of every domain."""

    path: str = Field(
        default="", max_length=512, description="File of the newest matrix, relative to the pool's store."
    )
    digest: Digest | None = Field(
        default=None, description="SHA-256 of that file. Absent before a matrix was filled."
    )
    revisions: int = Field(default=0, description="Number of its rows: current revisions.")
    anchors: int = Field(default=0, description="Number of its columns: anchors of domains.")
    cells: int = Field(default=0, description="Number of cells that could be computed.")
    extent: str = Field(
        max_length=71,
        description="Digest of the revisions and anchors that were asked for last. It is filled again when it changes.",
    )
    time: str = Field(
        max_length=40,
        description="When it was filled or given up last: RFC 3339 in UTC, for example `2026-01-31T12:00:00+00:00`.",
    )
    message: str = Field(
        default="", max_length=1024, description="Why the newest could not be filled. Empty if it was."
    )


class ExpertPoolStatus(ObjectStatus):
    """What the operator found out about the pool, and did for it."""

    phase: str = Field(
        default="",
        max_length=40,
        description="Summary in one word, for people: `Progressing`, `Ready`, `Paused`, `Stalled` if an object of somebody "
        "else has a name that the pool needs, or `Error` if the operator failed to process the pool. Programs should read "
        "conditions.",
    )
    experts: str = Field(
        default="",
        max_length=16,
        description="Text of the EXPERTS column: number of Experts that serve, of all Experts, for example `2/3`.",
    )
    routing: RoutingStatus = Field(
        default_factory=RoutingStatus, description="What the gateways do, and which routing policy they have."
    )
    analysis: PoolAnalysis | None = Field(
        default=None,
        description="How the pool's requests spread over its Experts in the last 24 hours. Absent before anything was "
        "observed.",
    )
    lifecycle: LifecycleStatus | None = Field(
        default=None,
        description="What was proposed for the Experts of the pool. Absent before anything was.",
    )
    matrix: MatrixStatus | None = Field(
        default=None,
        description="The full matrix, if spec.evaluation.schedule is `daily` or `weekly`. Absent before it was filled.",
    )
    pipelines: PipelinesStatus | None = Field(
        default=None,
        description="How the data of the pool's Experts develop. Absent while no Expert has a snapshot.",
    )
    replicas: int = Field(default=0, description="Number of gateway pods, for the scale subresource.")
    selector: str = Field(
        default="",
        max_length=512,
        description="Label selector of the gateway's pods, for the scale subresource.",
    )


class ExpertPool(CustomResource):
    """Experts that serve together: storage, evaluation, routing, budget, and one gateway."""

    spec: ExpertPoolSpec
    status: ExpertPoolStatus = Field(default_factory=ExpertPoolStatus)

    @property
    def claim(self) -> str:
        """Name of the PersistentVolumeClaim that is the pool's store: the user's, or one that the operator makes."""
        return claim_of(self.metadata.name, self.spec.storage.claim)


def claim_of(pool: str, named: str | None) -> str:
    """Return the name of a pool's claim: the one that spec.storage.claim names, or else the one that the operator makes."""
    return named or f"{pool}-store"
