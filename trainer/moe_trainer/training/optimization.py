"""AdamW with two parameter groups, and the learning rate with warm-up and decay, as usual for transformers."""

import math
from collections.abc import Callable, Mapping
from itertools import chain

import torch
from torch import nn
from torch.optim.adamw import adamw

from moe_formats.training_spec import Schedule, TrainingSpec
from moe_trainer.parallel.spread import local

#: The learning rate ends at this share of its peak.
FINAL_SHARE = 0.1
BETAS = (0.9, 0.95)
EPSILON = 1e-8


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name: those that the method has not frozen (methods/)."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def undecayed(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that are not decayed: vectors, and the weights of embeddings and norms.

    A norm may have a matrix, with a vector for each head. An output layer that is tied to the embedding is one.
    """
    whole = (m for m in model.modules() if isinstance(m, nn.Embedding) or type(m).__name__.endswith("Norm"))
    vectors = (parameter for parameter in model.parameters() if parameter.dim() == 1)
    return {id(parameter) for parameter in chain(vectors, *(m.parameters(recurse=False) for m in whole))}


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); norms and embeddings are not decayed.

    The update is torch's fused kernel. The class ``torch.optim.AdamW`` is not used because it imports the compiler,
    which costs more than three CPU seconds at every start. If a parameter is spread over processes
    (parallel/spread.py), this process has the moments of its part, and updates its part.
    """

    def __init__(self, model: nn.Module, spec: TrainingSpec) -> None:
        self._parameters = trained_parameters(model)
        kept = undecayed(model)
        self._weight_decay = {
            name: 0.0 if id(parameter) in kept else spec.weight_decay
            for name, parameter in self._parameters.items()
        }
        self.first_moments = {name: torch.zeros_like(local(p)) for name, p in self._parameters.items()}
        self.second_moments = {name: torch.zeros_like(local(p)) for name, p in self._parameters.items()}
        self.steps_done = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the parameters by their gradients with learning rate ``rate``."""
        for decay in sorted(set(self._weight_decay.values())):
            gradients = {
                name: local(parameter.grad)
                for name, parameter in self._parameters.items()
                if self._weight_decay[name] == decay and parameter.grad is not None
            }
            names = list(gradients)
            adamw(
                params=[local(self._parameters[name]) for name in names],
                grads=list(gradients.values()),
                exp_avgs=[self.first_moments[name] for name in names],
                exp_avg_sqs=[self.second_moments[name] for name in names],
                max_exp_avg_sqs=[],
                state_steps=[torch.tensor(float(self.steps_done)) for _ in names],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
                maximize=False,
            )
        self.steps_done += 1


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """Return the learning rate of a step (the first is 0): linear warm-up to the peak, then the schedule.

    Cosine and Linear end at FINAL_SHARE of the peak; Constant stays at the peak.
    """
    warmup = round(spec.warmup_fraction * steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return spec.learning_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * _SCHEDULES[spec.schedule](done))


#: From the share of the steps after the warm-up that are done to the share of the decay that is left.
_SCHEDULES: Mapping[Schedule, Callable[[float], float]] = {
    "Cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "Linear": lambda done: 1 - done,
    "Constant": lambda done: 1.0,
}
