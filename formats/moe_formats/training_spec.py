"""How a revision is trained: the one definition of every field that training reads.

    TrainingFields    every field once: its type, bounds, default for users, and description
    ├── TrainingSpec  what is trained: a revision's `inputs.training` and a TrainJob's `training`
    └── Training      what users ask for: an Expert's `spec.training` (resources/training.py)

The two differ in what an absent field means. In `Training` it means the default for users, which may change between
versions. In `TrainingSpec` it means the value of the frozen table in left_out.py, so that a revision that was
stored before a field existed, or before its default changed, keeps its meaning and its digest.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from moe_formats import left_out
from moe_formats.format import Format

#: How a revision's weights are made from those of its base.
MethodName = Literal["Full", "LoRA", "ExpertBank"]

#: Parts of a model that can get low-rank updates.
LoRATarget = Literal["Attention", "FeedForward", "InLayerExperts"]

#: Course of the learning rate after its warm-up.
Schedule = Literal["Cosine", "Linear", "Constant"]


#: Descriptions of fields that TrainingSpec defines again, because there they always have a value.
_LORA = "Size of the low-rank updates. Read by method LoRA only. Default: rank 16 on all parts."
_BANK = "Size of the bank. Read by method ExpertBank only. Default: 4 in-layer experts per mixture layer."


class Balancing(Format):
    """How the routers of a mixture spread tokens over the in-layer experts."""

    scope: Literal["MicroBatch", "Sequence", "GlobalBatch"] = Field(
        default="GlobalBatch",
        description="Tokens over which the load-balancing loss asks for balance: those of one forward pass "
        "(`MicroBatch`), of each sequence (`Sequence`), or of the whole optimizer step (`GlobalBatch`).",
    )
    against: Literal["Uniform", "Base"] = Field(
        default="Uniform",
        description="Load that the load-balancing loss asks for: an even one (`Uniform`), or the one that the base has "
        "on this Expert's data, measured once before the first step (`Base`).",
    )
    bias: Literal["None", "Sign", "Proportional"] = Field(
        default="None",
        description="Balances without a loss: adds a bias to the scores by which the router chooses, and moves it after "
        "each step, by biasRate (`Sign`) or by biasRate times the relative deviation from the mean load "
        "(`Proportional`). Only for method Full and a base whose routers have sigmoid scores. `None` adds no bias.",
    )
    bias_rate: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="How far the bias moves per step, in units of the router's scores.",
    )
    capacity_factor: float | None = Field(
        default=None,
        gt=0,
        le=64,
        description="Largest number of slots that an in-layer expert takes in a forward pass during training, as a "
        "multiple of its fair share: all slots divided by the number of in-layer experts. It takes the slots with the "
        "largest weights and drops the others. "
        "Default: nothing is dropped.",
    )


class EarlyStop(Format):
    """When training ends before its last step. The artefact then holds the weights of the best validation."""

    patience: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Training ends after this many validations in a row without an improvement.",
    )
    min_delta: float = Field(
        default=0.0,
        ge=0,
        le=8,
        description="Smallest improvement that counts: how far a validation must be below the best one so far, in bits "
        "per byte.",
    )


class Curriculum(Format):
    """How the weights of sources follow what the model has not learnt yet, instead of staying as spec.data.sources has them."""

    rate: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="How strongly weights follow the losses. Of two sources, the one whose loss has fallen one bit per byte "
        "less since the start of the run gains on the other by the factor exp(rate) at each validation.",
    )
    floor: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Smallest weight of a source, as a multiple of the one that spec.data.sources gives it.",
    )


class LoRASpec(Format):
    """Low-rank updates of frozen weights: W + scale * B A, where scale is alpha / rank (Hu et al., 2021)."""

    rank: int = Field(
        default=16, ge=1, le=1024, description="Rank of each update: rows of A and columns of B."
    )
    alpha: float = Field(
        default=32.0,
        gt=0,
        le=65536,
        description="Scale of the updates: each is B A times alpha / rank, or alpha / sqrt(rank) with rankStabilised.",
    )
    rank_stabilised: bool = Field(
        default=False,
        description="Divides alpha by the square root of the rank instead of the rank, so that a larger rank does not "
        "train more slowly (Kalajdzievski, 2023).",
    )
    targets: tuple[LoRATarget, ...] = Field(
        default_factory=tuple,
        max_length=3,
        description="Parts of the model that get updates: the projections of attention (`Attention`), the projections "
        "of dense and shared feed-forward layers (`FeedForward`), the in-layer experts (`InLayerExperts`). "
        "Default: all parts that the base has.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class BankSpec(Format):
    """New in-layer experts next to the frozen ones of a base."""

    experts: int = Field(
        default=4,
        ge=1,
        le=64,
        description="In-layer experts that the bank adds to each mixture layer; at most as many as the base has.",
    )


#: A type of its own, since the field has one default for users and another meaning where a record lacks it.
LoadBalancingLossWeight = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        description="Weight of the load-balancing loss, which makes routers use all in-layer experts. 0 turns it off. Must "
        "be 0 for a base without routers that can be balanced (a dense one). Method ExpertBank ignores it.",
    ),
]


class TrainingFields(Format):
    """Every field that training reads, with its default for users."""

    method: MethodName = Field(
        default="Full",
        description="How the weights are made. `Full` trains all weights. `LoRA` trains low-rank updates of the base's "
        "frozen weights; the artefact is a PEFT adapter. `ExpertBank` trains new in-layer experts next to the frozen "
        "ones of a mixture.",
    )
    lora: LoRASpec | None = Field(
        default=None,
        description=_LORA,
    )
    bank: BankSpec | None = Field(
        default=None,
        description=_BANK,
    )
    learning_rate: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW, reached at the end of the warm-up.",
    )
    schedule: Schedule = Field(
        default="Cosine",
        description="Course of the learning rate after the warm-up: down to a tenth of its peak along half a cosine "
        "(`Cosine`) or a straight line (`Linear`), or unchanged (`Constant`).",
    )
    warmup_fraction: float = Field(
        default=0.05,
        ge=0,
        le=0.9,
        description="Share of the steps, at the start, over which the learning rate rises to its peak.",
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Number of optimizer steps. If set, maxEpochs is ignored. Default: as many steps as maxEpochs take.",
    )
    max_epochs: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Number of passes over the training text. Ignored if maxSteps is set.",
    )
    batch_tokens: int = Field(
        default=4096,
        ge=64,
        le=100_000_000,
        description="Tokens per optimizer step, over all processes together.",
    )
    micro_batch_tokens: int | None = Field(
        default=None,
        ge=64,
        le=100_000_000,
        description="Tokens per forward and backward pass of one process. A smaller value takes less memory: the gradients "
        "of several passes are added up to one step. At most batchTokens. Default: batchTokens, so that a process takes its "
        "whole share of a step in one pass.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=16,
        le=1_048_576,
        description="Tokens per training sequence; a step has batchTokens / contextTokens sequences. Evaluation needs "
        "room for a segment and the text before it: at least 384 tokens, or 4096 where the pool's "
        "evaluation.segmentBytes is 3968. Default: as many as the base can see, at most 4096.",
    )
    across_documents: bool = Field(
        default=True,
        description="Documents are packed into sequences. `true` lets a token see the documents before its own in the "
        "same sequence; `false` keeps documents apart.",
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Decoupled weight decay of AdamW. Each step shrinks every matrix but the embeddings by this share "
        "times the learning rate.",
    )
    gradient_clip: float = Field(
        default=1.0,
        gt=0,
        le=1_000_000,
        description="Largest norm of a step's gradient, over all trained weights. A larger gradient is scaled down to it.",
    )
    recompute: bool = Field(
        default=False,
        description="Computes the activations inside a layer again during the backward pass instead of keeping them. "
        "Takes less memory and about a third more time.",
    )
    load_balancing_loss_weight: LoadBalancingLossWeight = 0.2
    auxiliary_loss_weight: float = Field(
        default=0.001,
        ge=0,
        le=10,
        description="Weight of the router z-loss, which keeps the router's logits small. 0 turns it off. Must be 0 for a "
        "base without routers that can be balanced (a dense one).",
    )
    specialization_loss_weight: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Weight of the specialization loss, which gives more weight to text on which the Expert is not yet "
        "better than its base, so it needs base.expert or base.store. The base is computed alongside, which takes about a "
        "third more time, and memory for its weights. 0 turns it off.",
    )
    regularization: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Weight of KL(base || Expert) on replayed text, which keeps the Expert close to its base there. "
        "Needs data.replay, and so base.expert. The base is computed alongside, which takes about a third more time, and "
        "memory for its weights. 0 turns it off.",
    )
    balancing: Balancing = Field(
        default_factory=Balancing,
        description="How routers spread tokens over the in-layer experts. Default: evenly, by the load-balancing loss.",
    )
    early_stop: EarlyStop | None = Field(
        default=None,
        description="Ends training when validation stops improving, and keeps the weights of the best validation. Takes "
        "room for one more copy of the trained weights, in memory and in checkpoints. Default: training takes all its "
        "steps and keeps the last weights.",
    )
    curriculum: Curriculum | None = Field(
        default=None,
        description="Reads sources more often whose loss has fallen least. Needs at least two sources with weights. The run "
        "tries it against the weights of spec.data.sources, from the same weights of the model and with as many bytes, and "
        "uses it only while the loss on the source that is worst off is provably lower. A trial takes the steps to the next "
        "validation twice; it comes after the first, second, fourth, eighth validation and so on. Takes room for two more "
        "copies of what a checkpoint has, in memory. Default: the weights stay.",
    )
    validation_every: int = Field(
        default=100, ge=1, le=1_000_000, description="Optimizer steps between validations."
    )
    checkpoint_every: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="Optimizer steps between checkpoints: the most work that is lost when a Job is killed.",
    )


def _without_bounds(schema: JsonDict) -> None:
    """Leave numbers without bounds, as the CRD of ExpertRevision always had them: a CRD is never tightened.

    A revision is made from an Expert that was within the bounds, so they would refuse nothing.
    """
    fields = schema["properties"]
    assert isinstance(fields, dict)
    for field in fields.values():
        assert isinstance(field, dict)
        options = field.get("anyOf", [])
        assert isinstance(options, list)
        for part in (field, *options):
            assert isinstance(part, dict)
            for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
                part.pop(bound, None)


class TrainingSpec(TrainingFields):
    """What is trained, with a value for every field. A field that is absent has the value of left_out.OF_REVISIONS."""

    model_config = ConfigDict(json_schema_extra=_without_bounds)

    lora: LoRASpec = Field(
        default_factory=LoRASpec,
        description=_LORA,
    )
    bank: BankSpec = Field(
        default_factory=BankSpec,
        description=_BANK,
    )
    # The default for users has changed since this field was first recorded.
    load_balancing_loss_weight: LoadBalancingLossWeight = left_out.OF_REVISIONS["load_balancing_loss_weight"]
    replay_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of every batch that is text on which the base was trained, from data.replay of the Expert.",
    )

    @property
    def compares_with_base(self) -> bool:
        """Whether a loss compares the model with its frozen base, which then has to be loaded too."""
        return self.specialization_loss_weight > 0 or self.regularization > 0

    def revision_identity(self) -> dict[str, Any]:
        """Return the fields by which a revision is identified, by name in snake_case."""
        # Where training may end or change its data at a validation, the steps between validations change the weights.
        counts = self.early_stop is not None or self.curriculum is not None
        unread = left_out.NO_WEIGHTS_CHANGE - ({"validation_every"} if counts else set())
        return left_out.differing(self.model_dump(mode="json", exclude=set(unread)), left_out.OF_REVISIONS)

    def checkpoint_identity(self) -> dict[str, Any]:
        """Return the fields by which a checkpoint is identified, by name in snake_case: all that decide a run's bits."""
        found = left_out.differing(self.model_dump(mode="json"), left_out.OF_CHECKPOINTS)
        if self.early_stop is not None:
            fields = self.early_stop.model_dump(mode="json")
            found["early_stop"] = left_out.differing(fields, left_out.OF_EARLY_STOP_OF_CHECKPOINTS)
        return found
