"""`spec.training` of an Expert: how its weights are made, and where.

The fields that decide the weights are defined in `moe_formats.training_spec`, once for users, revisions and Jobs.
"""

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.names import Name
from moe_formats.resources.base import cel
from moe_formats.training_spec import TrainingFields, TrainingSpec


class Resources(Format):
    """Where training runs and over how many processes. None of it changes what is trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.nodes * self.devicesPerNode % self.expertParallelism == 0",
                "nodes times devicesPerNode must be a multiple of expertParallelism: change one of the three, so that "
                "a whole number of data-parallel replicas comes out",
            ),
        )
    )

    profile: Name = Field(
        default="cpu",
        description="Hardware profile of the pods of training and evaluate Jobs, one of those that the platform's owner "
        "defined in the chart's values.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Pods of the training Job. They start together; if one is lost, the attempt ends and the next one "
        "resumes from the last checkpoint. More than one pod needs a pool whose claim several nodes can write to.",
    )
    devices_per_node: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Accelerators per pod, or processes per pod on a CPU. Each accelerator has a process of its own, unless "
        "the profile says that a host lends its accelerators only all together (hostDevices): then one process drives them.",
    )
    expert_parallelism: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Number of processes that share the in-layer experts of each layer between them. The number of "
        "data-parallel replicas is nodes * devicesPerNode / expertParallelism. With 1, every process holds all of them.",
    )


class Training(TrainingFields):
    """How weights are made. Nothing here is measured in time, since a run that resumes could not repeat it exactly."""

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

    max_attempts: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Number of failed training Jobs after which a revision fails. A pod that is evicted, preempted, deleted, "
        "lost with its node or rejected by it does not count, nor does a full disk. Wrong input fails the revision at once.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Where training runs and over how many processes. Default: one process on a CPU.",
    )

    def spec(self, *, replay_share: float = 0.0) -> TrainingSpec:
        """Return what is trained, with the default for users in place of every field that they left out.

        Targets of LoRA are sorted: their order changes nothing, so it must not change an identity either.
        """
        asked = self.model_dump(exclude_none=True) | {"replay_share": replay_share}
        spec = TrainingSpec.model_validate(asked)
        in_order = spec.lora.model_copy(update={"targets": tuple(sorted(spec.lora.targets))})
        return spec.model_copy(update={"lora": in_order})
