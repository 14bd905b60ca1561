"""Keeps the load of a run's routers even, as its training spec says.

    a micro-batch   loss(routings)     w_lb * load-balancing loss + w_z * router z-loss, means over layers
    a step          loads()            how the slots of the step were spread
                    finish_step()      moves the selection biases accordingly, before the next forward pass

Balancing against the base (``against: Base``): a base whose layers are specialised sends the text of a domain to some
in-layer experts more than to others. Its load on the run's own data is measured once, before the first step; the loss
then pulls towards this load instead of an even one.

Shapes: L layers with a router, E in-layer experts, B sequences, T tokens.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from moe_formats.failure import JobError
from moe_formats.training_spec import TrainingSpec
from moe_trainer.models.causal_model import CausalModel, Mixture
from moe_trainer.moe.balance import LayerLoad, StepCounts, update_bias
from moe_trainer.moe.routing import Routing
from moe_trainer.training.load_record import LoadRecord
from moe_trainer.training.losses import load_balancing_loss, router_z_loss, target_load

#: The number of the run's batches on which the base's load is measured.
BASE_LOAD_STEPS = 16


class Balancer:
    """The balancing of one run: its losses, its biases, and the record of its load."""

    def __init__(
        self, model: CausalModel, spec: TrainingSpec, process_group: ProcessGroup | None = None
    ) -> None:
        """Balance the routers of a model; raises JobError (InvalidConfig) if the model lacks what the spec needs."""
        self._layers = model.mixtures
        self._spec = spec
        #: With a bank the base's routers are frozen, and the bank's own rows start with the load of their originals.
        self._weight = 0.0 if spec.method == "ExpertBank" else spec.load_balancing_loss_weight
        self._process_group = process_group
        _check(self._layers, spec)
        for layer in self._layers:
            layer.capacity_factor = spec.balancing.capacity_factor
        experts = self._layers[0].router.experts if self._layers else 0
        self.record = LoadRecord(len(self._layers), experts)
        self.base_counts_LE: Tensor | None = None  #: The base's load, if it is balanced against.
        self._counts = StepCounts(process_group)

    def loss(self, routings: Sequence[Routing]) -> Tensor:
        """Return the weighted losses of a micro-batch, given one routing per layer, and count its slots."""
        if not routings:
            return torch.zeros(())
        step_counts_LE = self._counts.add(routings)
        targets = [None] * len(routings) if self.base_counts_LE is None else target_load(self.base_counts_LE)
        scope = self._spec.balancing.scope
        balance = torch.stack(
            [
                load_balancing_loss(routing, scope, step_counts_E=step_counts_E, target_E=target_E)
                for routing, step_counts_E, target_E in zip(routings, step_counts_LE, targets, strict=True)
            ]
        ).mean()
        z = torch.stack([router_z_loss(routing) for routing in routings]).mean()
        return self._weight * balance + self._spec.auxiliary_loss_weight * z

    def loads(self) -> list[LayerLoad]:
        """Return each layer's load over the step so far; waits for the device."""
        return self._counts.loads()

    def finish_step(self) -> None:
        """Record the step's loads, move the biases by them, and start the next step."""
        loads, rule = self.loads(), self._spec.balancing.bias
        if loads:
            self.record.add(loads)
        if rule != "None":
            for layer, load in zip(self._layers, loads, strict=True):
                if layer.bias_E is not None:
                    counts_E = torch.tensor(load.counts, device=layer.bias_E.device)
                    update_bias(layer.bias_E, counts_E, self._spec.balancing.bias_rate, rule)
        self._counts = StepCounts(self._process_group)

    def measure_base(self, model: CausalModel, batches: Iterable[Tensor]) -> None:
        """Measure the load of the model, which still has its base's weights, on some batches of the run."""
        counts = StepCounts(self._process_group)
        model.eval()  # nothing is dropped
        with torch.no_grad():  # inference_mode would leave gathered weights that cannot be trained
            for ids_BT in batches:
                counts.add(model.with_routing(ids_BT[:, :-1])[1])
        model.train()
        self.base_counts_LE = torch.tensor([load.counts for load in counts.loads()])

    def base_loads(self) -> list[LayerLoad]:
        """Return the base's load, one per layer; empty if it is not balanced against."""
        if self.base_counts_LE is None:
            return []
        return [LayerLoad(tuple(counts)) for counts in self.base_counts_LE.tolist()]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of balancing for a checkpoint; the biases belong to the model."""
        base = {} if self.base_counts_LE is None else {"base_counts": self.base_counts_LE}
        return base | self.record.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors`` returned."""
        self.record.load_tensors(tensors)
        if "base_counts" in tensors:
            self.base_counts_LE = tensors["base_counts"].to(torch.get_default_device())


def _check(layers: Sequence[Mixture], spec: TrainingSpec) -> None:
    balancing = spec.balancing
    weighted = spec.load_balancing_loss_weight or spec.auxiliary_loss_weight
    if not layers and (weighted or balancing.bias != "None"):
        raise _invalid(
            "the base is dense, or its routers are of a kind that is not known here, so there is nothing to balance: "
            "set loadBalancingLossWeight and auxiliaryLossWeight to 0, and leave out balancing"
        )
    if balancing.bias != "None" and any(layer.bias_E is None for layer in layers):
        raise _invalid(
            f"balancing.bias is {balancing.bias}, but the base's routers score by softmax and have no bias: take "
            "a base with sigmoid scores (preset tiny-sigmoid or a GLM-4.5), or balance by loadBalancingLossWeight"
        )
    if balancing.against == "Base" and (balancing.bias != "None" or not spec.load_balancing_loss_weight):
        raise _invalid(
            "balancing.against is Base, which acts only through the loss: set loadBalancingLossWeight above 0 and "
            "balancing.bias to None"
        )


def _invalid(message: str) -> JobError:
    return JobError("InvalidConfig", f"training: {message}.")
