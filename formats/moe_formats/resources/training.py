"""How an Expert's weights are made: ``spec.training``."""

from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.resources.base import Name, cel


class Resources(Format):
    """Where and how wide training runs: nodes x devices = expert x data parallelism. No part of what is trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.nodes * self.devicesPerNode % self.expertParallelism == 0",
                "nodes times devicesPerNode must be a multiple of expertParallelism: what is left of the division is "
                "the number of data-parallel replicas",
            ),
        )
    )

    profile: Name = Field(
        default="cpu",
        description="A hardware profile that the platform's owner defined in the chart's values. Default: cpu.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Pods of the training Job, a gang: any that is lost ends the attempt, and the next one goes on from "
        "the last checkpoint. More than one need a pool's claim that many nodes can write. Default: 1.",
    )
    devices_per_node: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Accelerators (or processes, on CPU) of a pod; each is driven by a process. Default: 1.",
    )
    expert_parallelism: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Processes over which each layer's in-layer experts are cut; data parallelism is the number of "
        "processes over it. Default: 1, every process holds all of them.",
    )


class Balancing(Format):
    """How the routers of a mixture spread their load over the in-layer experts."""

    scope: Literal["MicroBatch", "Sequence", "GlobalBatch"] = Field(
        default="GlobalBatch",
        description="Over which tokens the load-balancing loss asks for balance: those of a forward pass, of each "
        "sequence, or of the whole optimizer step. Default: GlobalBatch.",
    )
    against: Literal["Uniform", "Base"] = Field(
        default="Uniform",
        description="`Base`: the loss asks for the load that the base has on this Expert's data, measured once, "
        "in place of an even one. Default: Uniform.",
    )
    bias: Literal["None", "Sign", "Proportional"] = Field(
        default="None",
        description="Balancing without a loss: a bias of the router's choice that moves after each step, by its rate "
        "(`Sign`) or by its rate times the relative violation (`Proportional`). Default: None.",
    )
    bias_rate: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="How far the bias moves in a step, in units of the router's scores. Default: 0.001.",
    )
    capacity_factor: float | None = Field(
        default=None,
        gt=0,
        le=64,
        description="While it trains, an in-layer expert takes at most so many times its fair share of a forward "
        "pass's slots, those of largest weight; the rest is dropped. Default: nothing is dropped.",
    )


class EarlyStop(Format):
    """Ending when validation no longer gets better. The artefact is then the best validated step's."""

    patience: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Validations in a row without a better one, after which training ends. Default: 3.",
    )
    min_delta: float = Field(
        default=0,
        ge=0,
        le=8,
        description="Bits per byte by which a validation has to be below the best before it to be better. Default: 0.",
    )


class LoRA(Format):
    """Low-rank updates beside frozen weights: W + alpha / rank * B A."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of each update. Default: 16.")
    alpha: float = Field(
        default=32, gt=0, le=65536, description="The updates' scale, times the rank. Default: 32."
    )
    rank_stabilised: bool = Field(
        default=False,
        description="Divide alpha by the root of the rank, so that a larger rank does not train slower. Default: false.",
    )
    targets: list[Literal["Attention", "FeedForward", "InLayerExperts"]] = Field(
        default_factory=list,
        max_length=3,
        description="What is updated: the attention's projections, dense and shared feed-forward projections, the "
        "in-layer experts. Default: all that the base has.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Bank(Format):
    """New in-layer experts beside those of the base."""

    experts: int = Field(
        default=4,
        ge=1,
        le=64,
        description="In-layer experts that the bank has in each mixture layer, at most as many as the base has. "
        "Default: 4.",
    )


class Training(Format):
    """How weights are made. Never wall time, which cannot resume exactly."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.microBatchTokens) || self.microBatchTokens <= self.batchTokens",
                "microBatchTokens is larger than batchTokens: lower it, or leave it out",
            ),
            (
                "!has(self.lora) || self.method == 'LoRA'",
                "lora is for method LoRA: leave it out, or set method to LoRA",
            ),
            (
                "!has(self.bank) || self.method == 'ExpertBank'",
                "bank is for method ExpertBank: leave it out, or set method to ExpertBank",
            ),
            (
                "self.method != 'ExpertBank' || self.balancing.against == 'Uniform'",
                "balancing.against Base is for the base's in-layer experts, which method ExpertBank does not train: leave "
                "it out",
            ),
            (
                "self.method == 'Full' || self.balancing.bias == 'None'",
                "balancing.bias moves the base's routers, which this method leaves as they are: leave it out",
            ),
            (
                "self.balancing.against == 'Uniform' || self.loadBalancingLossWeight > 0.0",
                "balancing.against Base acts through the loss: give loadBalancingLossWeight a value above 0",
            ),
            (
                "self.balancing.against == 'Uniform' || self.balancing.bias == 'None'",
                "balancing.bias drives the load to uniform: leave out balancing.bias or balancing.against",
            ),
        )
    )

    method: Literal["Full", "LoRA", "ExpertBank"] = Field(
        default="Full",
        description="`Full`: all weights are trained. `LoRA`: low-rank updates beside the base's frozen weights; the "
        "artefact is a PEFT adapter. `ExpertBank`: new in-layer experts beside the frozen ones of a mixture. "
        "Default: Full.",
    )
    lora: LoRA | None = Field(
        default=None, description="Sizes of the updates, for method LoRA. Default: rank 16 on all parts."
    )
    bank: Bank | None = Field(
        default=None,
        description="Size of the bank, for method ExpertBank. Default: 4 in-layer experts a layer.",
    )
    learning_rate: float = Field(
        default=0.001, gt=0, le=1, description="Peak learning rate of AdamW. Default: 0.001."
    )
    schedule: Literal["Cosine", "Linear", "Constant"] = Field(
        default="Cosine",
        description="How the learning rate goes on after its warm-up: down to a tenth by half a cosine or in a line, "
        "or not at all. Default: Cosine.",
    )
    warmup_fraction: float = Field(
        default=0.05,
        ge=0,
        le=0.9,
        description="Share of the steps in which the learning rate rises to its peak. Default: 0.05.",
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Optimizer steps; wins over maxEpochs. Default: by maxEpochs.",
    )
    max_epochs: float = Field(
        default=1,
        gt=0,
        le=1000,
        description="Passes over the training text when maxSteps is absent. Default: 1.",
    )
    batch_tokens: int = Field(
        default=4096,
        ge=64,
        le=100_000_000,
        description="Tokens per optimizer step, over all processes. Default: 4096.",
    )
    micro_batch_tokens: int | None = Field(
        default=None,
        ge=64,
        le=100_000_000,
        description="Tokens of one forward and backward pass: gradients of several are added up, which takes less "
        "memory. Default: batchTokens.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=16,
        le=1_048_576,
        description="Tokens of a training sequence; a batch holds batchTokens / contextTokens of them. Evaluation needs "
        "room for a segment with the text before it: at least 384, or 4096 where the pool's evaluation.segmentBytes is "
        "3968. Default: what the base can see, at most 4096.",
    )
    across_documents: bool = Field(
        default=True,
        description="Documents are packed into sequences; `false` keeps them apart, so that no token sees the document "
        "before its own. Default: true.",
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="AdamW's decay of matrices, per step and unit of learning rate. Default: 0.1.",
    )
    gradient_clip: float = Field(
        default=1,
        gt=0,
        le=1_000_000,
        description="Largest norm of a step's gradient; a longer one is scaled down to it. Default: 1.",
    )
    recompute: bool = Field(
        default=False,
        description="Keep no activations inside of a layer for the backward pass, but compute them again: less memory "
        "for about a third more time. Default: false.",
    )
    load_balancing_loss_weight: float = Field(
        default=0.2, ge=0, le=10, description="Weight of the router's load-balancing loss. Default: 0.2."
    )
    auxiliary_loss_weight: float = Field(
        default=0.001, ge=0, le=10, description="Weight of the router z-loss. Default: 0.001."
    )
    specialization_loss_weight: float = Field(
        default=0,
        ge=0,
        le=10,
        description="Weight of the specialization loss, which prefers text on which the Expert is not yet better than "
        "its base. The base is computed beside it: about a third more time, and its weights once more in memory. "
        "Default: 0, none.",
    )
    regularization: float = Field(
        default=0,
        ge=0,
        le=100,
        description="Weight of KL(base || Expert) on replayed text, which holds the Expert to what its base says there; "
        "needs data.replay. Costs what specializationLossWeight costs. Default: 0, none.",
    )
    balancing: Balancing = Field(
        default_factory=Balancing, description="How routers spread their load. Default: evenly, by the loss."
    )
    early_stop: EarlyStop | None = Field(
        default=None,
        description="End when validation no longer gets better, and keep the best weights: one more copy of what is "
        "trained in memory and in checkpoints. Default: all steps are taken, and the last weights are kept.",
    )
    validation_every: int = Field(
        default=100, ge=1, le=1_000_000, description="Steps between validations. Default: 100."
    )
    checkpoint_every: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="Steps between checkpoints: what a kill can cost. Default: 50.",
    )
    max_attempts: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Attempts of a training Job before the revision fails. Default: 4.",
    )
    resources: Resources = Field(
        default_factory=Resources, description="Where training runs. Default: one CPU pod."
    )
