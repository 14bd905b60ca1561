"""ExpertPool: Experts that serve together behind one gateway."""

from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.names import Name
from moe_formats.resources.base import ObjectMeta, ShortText, cel
from moe_formats.resources.conditions import Condition
from moe_formats.resources.evaluator import Evaluator
from moe_formats.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes


class Storage(Format):
    """Where snapshots, checkpoints, weights and evidence live."""

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
        description="Size of a claim that the operator makes, for example `20Gi`. It can grow.",
    )
    claim: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="A PersistentVolumeClaim of this namespace to use instead.",
    )
    storage_class: str | None = Field(
        default=None,
        max_length=253,
        description="StorageClass of the claim. Default: the cluster's default class.",
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="ReadWriteMany where Jobs and servers run on several nodes. Default: ReadWriteOnce.",
    )


class Evaluation(Format):
    """How Experts of the pool are measured. Holdout and segments are fixed: scores would not compare otherwise."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.holdout == oldSelf.holdout && self.salt == oldSelf.salt",
                "evaluation.holdout and evaluation.salt are immutable, since every score rests on them: create another pool",
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
        description="Share of near-duplicate clusters held out. Immutable. Default: 0.1.",
    )
    salt: str = Field(
        default="moe",
        max_length=64,
        description="Mixed into the hash that picks held-out clusters. Immutable. Default: moe.",
    )
    segment_bytes: SegmentBytes = Field(
        default=DEFAULT_SEGMENT_BYTES,
        description="Bytes of the segments that are scored, each after at most 128 bytes. 3968 also measures what a long "
        "context is worth, and every Expert's base must see 4096 tokens: no preset does. 256 takes 384. Immutable. "
        "Default: 256.",
    )
    evaluators: list[Evaluator] = Field(
        default_factory=list,
        max_length=16,
        description="Named measures of tasks that can be checked, for Experts to ask for. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class Routing(Format):
    """How the gateway picks an Expert for a request."""

    strategy: Literal["Distilled", "Posterior"] = Field(
        default="Distilled",
        description="`Distilled`: a small table learnt from the matrix scores the prompt in the gateway. "
        "`Posterior`: every Expert scores the prompt; most accurate, one forward pass per Expert. "
        "Default: Distilled; Posterior serves until the table exists.",
    )
    fallback: Name | None = Field(
        default=None,
        description="The Expert that takes a request which cannot be scored. Default: the first by name.",
    )


class GatewaySpec(Format):
    """The pool's gateway."""

    replicas: int = Field(default=1, ge=0, le=64, description="Gateway pods. Default: 1.")


class Budget(Format):
    """What the pool may use at once."""

    training_jobs: int = Field(
        default=2, ge=1, le=1000, description="Training and evaluate Jobs that run at once. Default: 2."
    )
    replicas: int | None = Field(
        default=None, ge=1, le=10_000, description="Servers of all Experts together. Default: not limited."
    )


class ExpertPoolSpec(Format):
    """What the user wants."""

    storage: Storage = Field(description="Where snapshots, checkpoints, weights and evidence live.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="How Experts are measured.")
    routing: Routing = Field(default_factory=Routing, description="How requests find an Expert.")
    gateway: GatewaySpec = Field(default_factory=GatewaySpec, description="The pool's gateway.")
    budget: Budget = Field(default_factory=Budget, description="What the pool may use at once.")
    paused: bool = Field(default=False, description="Starts no new work in the whole pool. Default: false.")


class TableStatus(Format):
    """The table of the Distilled strategy, and how well it routes."""

    path: str = Field(max_length=512, description="Beneath the pool's store.")
    digest: Digest = Field(description="Its content address.")
    roster: str = Field(max_length=71, description="Digest of the roster and matrix it was made from.")
    experts: list[Name] = Field(
        default_factory=list, max_length=64, description="Experts that it tells apart."
    )
    accuracy: float = Field(description="Share of segments sent to the Expert that codes them best.")
    routed_bits_per_byte: float = Field(description="Bits per byte of the routed pool.")
    oracle_bits_per_byte: float = Field(description="Bits per byte if every segment went to its best Expert.")
    random_bits_per_byte: float = Field(description="Bits per byte if segments went to Experts at random.")
    posterior_bits_per_byte: float | None = Field(
        default=None, description="Bits per byte if Posterior had routed the same segments."
    )
    posterior_temperature: float | None = Field(
        default=None, description="What Posterior divides log-likelihoods by; fitted by likelihood."
    )


class RoutingStatus(Format):
    """What the gateways do."""

    strategy: str = Field(default="", max_length=40, description="The strategy in force.")
    digest: Digest | None = Field(default=None, description="Digest of the newest routing policy.")
    reported_by: int = Field(default=0, description="Gateway pods that report that digest.")
    revisions: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=64,
        description="Expert to the revision that every ready gateway is known to send its requests to.",
    )
    table: TableStatus | None = Field(default=None, description="The table of the Distilled strategy.")
    url: str | None = Field(
        default=None, max_length=512, description="Address of the gateway inside the cluster."
    )


class ExpertPoolStatus(Format):
    """What the operator found out and did."""

    observed_generation: int = Field(default=0, description="Generation that this status describes.")
    phase: str = Field(default="", max_length=40, description="A summary for people; nothing reads it.")
    reason: str = Field(default="", max_length=128, description="Why it is in that phase.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Reconciling, Stalled and what they rest on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    experts: str = Field(default="", max_length=16, description="What the EXPERTS column shows: serving/all.")
    routing: RoutingStatus = Field(default_factory=RoutingStatus, description="What the gateways do.")
    replicas: int = Field(default=0, description="Gateway pods, for the scale subresource.")
    selector: str = Field(default="", max_length=512, description="Label selector of the gateway's pods.")


class ExpertPool(Format):
    """Experts that serve together: storage, evaluation, routing, budget, and one gateway."""

    metadata: ObjectMeta
    spec: ExpertPoolSpec
    status: ExpertPoolStatus = Field(default_factory=ExpertPoolStatus)

    @property
    def claim(self) -> str:
        """Name of the PersistentVolumeClaim that is the pool's store: the user's, or one that the operator makes."""
        return self.spec.storage.claim or f"{self.metadata.name}-store"
