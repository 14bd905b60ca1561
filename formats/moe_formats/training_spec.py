"""How a revision is trained: the normalised spec of a TrainJob. Imports nothing heavy.

A checkpoint is known by the fields that are not at their default (training/run.py). So a field that is added has
the default under which weights come out as without it.
"""

from typing import Literal

from pydantic import Field

from moe_formats.format import Format


class Balancing(Format):
    """How the routers of a mixture spread their load over the in-layer experts."""

    scope: Literal["MicroBatch", "Sequence", "GlobalBatch"] = Field(
        default="GlobalBatch", description="The tokens over which the load-balancing loss asks for balance."
    )
    against: Literal["Uniform", "Base"] = Field(
        default="Uniform",
        description="`Base`: the loss asks for the parent's own load on the data, measured once at the start.",
    )
    bias: Literal["None", "Sign", "Proportional"] = Field(
        default="None", description="The rule by which the bias of the routers' choice moves after a step."
    )
    bias_rate: float = Field(default=0.001, gt=0, le=1, description="How far it moves.")
    capacity_factor: float | None = Field(
        default=None, gt=0, description="Slots an in-layer expert takes, over its fair share; absent: all."
    )


#: How a revision's weights are made from its base's (methods/).
MethodName = Literal["Full", "LoRA", "ExpertBank"]

#: Parts of a model that get low-rank updates.
LoRATarget = Literal["Attention", "FeedForward", "InLayerExperts"]

#: The learning rate after its warm-up.
Schedule = Literal["Cosine", "Linear", "Constant"]


class LoRASpec(Format):
    """The low-rank updates of method LoRA (Hu et al., 2021)."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rows of A and columns of B.")
    alpha: float = Field(default=32, gt=0, description="The update is alpha / rank times B A.")
    rank_stabilised: bool = Field(
        default=False, description="Divide alpha by the root of the rank (Kalajdzievski, 2023)."
    )
    targets: tuple[LoRATarget, ...] = Field(default=(), description="What is updated; empty: all parts.")


class BankSpec(Format):
    """The in-layer experts of method ExpertBank."""

    experts: int = Field(default=4, ge=1, le=64, description="That a bank has in each mixture layer, k.")


class EarlyStop(Format):
    """When a run ends before its last step."""

    patience: int = Field(default=3, gt=0, description="Validations in a row that are no better.")
    min_delta: float = Field(default=0.0, ge=0, description="Bits per byte by which a better one is better.")


class TrainingSpec(Format):
    """The normalised training spec: what identity is made of. Every field has a value."""

    method: MethodName = "Full"
    lora: LoRASpec = Field(default_factory=LoRASpec, description="Of method LoRA alone.")
    bank: BankSpec = Field(default_factory=BankSpec, description="Of method ExpertBank alone.")
    learning_rate: float = Field(default=0.0003, gt=0, description="Peak learning rate of AdamW.")
    max_steps: int | None = Field(default=None, gt=0, description="Optimizer steps; wins over maxEpochs.")
    max_epochs: float = Field(default=1, gt=0, description="Passes over the training text.")
    replay_share: float = Field(
        default=0.0, ge=0, lt=1, description="Share of a batch that is text of the base's own training."
    )
    batch_tokens: int = Field(
        default=4096, gt=0, description="Tokens per optimizer step, over all processes."
    )
    micro_batch_tokens: int | None = Field(
        default=None, gt=0, description="Tokens of one forward and backward pass; absent: all of a step."
    )
    context_tokens: int | None = Field(
        default=None, gt=0, description="Tokens of a sequence; absent: what the model can see, at most 4096."
    )
    across_documents: bool = Field(
        default=True, description="Tokens see the documents before theirs in the same sequence."
    )
    schedule: Schedule = Field(
        default="Cosine",
        description="How the learning rate goes on after the warm-up (training/optimization.py).",
    )
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps that warm up.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's decoupled decay of matrices.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    recompute: bool = Field(
        default=False, description="Keep no activations inside of a layer, but compute them again."
    )
    load_balancing_loss_weight: float = Field(default=0.2, ge=0)
    auxiliary_loss_weight: float = Field(default=0.001, ge=0, description="Weight of the router z-loss.")
    balancing: Balancing = Field(default_factory=Balancing)
    specialization_loss_weight: float = Field(
        default=0.0, ge=0, description="Weight of the loss that prefers text on which the base is better."
    )
    regularization: float = Field(
        default=0.0, ge=0, description="Weight of KL(base || model) on replayed text; needs a replay share."
    )
    early_stop: EarlyStop | None = Field(
        default=None, description="Absent: all steps are taken, and the artefact is the last one's."
    )
    validation_every: int = Field(default=200, gt=0, description="Steps between validations.")
    checkpoint_every: int = Field(default=100, gt=0, description="Steps between checkpoints.")

    @property
    def compares_with_base(self) -> bool:
        """Whether some loss needs the frozen base beside the model."""
        return self.specialization_loss_weight > 0 or self.regularization > 0
