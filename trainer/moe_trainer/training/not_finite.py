"""The error that ends a run whose numbers are no longer finite; it names the step and the place where that began.

The place is looked for only after a loss or gradient was not finite. An error that is found by validating is reported
with the step before.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moe_formats.failure import JobError
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.parallel.spread import local
from moe_trainer.training.run import Run


def check_step(run: Run, loss: float, norm: float, micro_batches: Sequence[Tensor]) -> None:
    """Raise JobError (LossNotFinite) unless a step's routers, its loss and its gradients' norm are finite."""
    for layer, load in enumerate(run.loads):
        if not math.isfinite(load.logit_rms):
            raise router_not_finite(run, layer)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        where = origin(run.model, micro_batches, alone=run.processes.alone)
        raise loss_not_finite(run, f"the loss is {loss} and the gradient's norm {norm}: {where}")


def check_weights(run: Run) -> None:
    """Raise JobError (LossNotFinite) if the last step has spoilt a weight of any process."""
    found = spoilt_weight(run.model)
    if run.processes.any(found is not None):
        raise loss_not_finite(run, found or "a weight of another process is not finite", after=True)


def loss_not_finite(run: Run, found: str, *, after: bool = False) -> JobError:
    """Return the error for what was found during the current step, or with ``after``, after the last one."""
    when = f"after step {run.step}" if after else f"at step {run.step + 1}"
    return JobError(
        "LossNotFinite",
        f"{when} of {run.steps} {found}. Lower training.learningRate (now {run.job.training.learning_rate}) or look at "
        "the data.",
    )


def router_not_finite(run: Run, layer: int | None, *, after: bool = False) -> JobError:
    """Return the error for a router's logits; ``layer`` is None if the router does not know its number."""
    where = "a layer" if layer is None else f"layer {layer}"
    return loss_not_finite(run, f"the router's logits in {where} are not finite", after=after)


def origin(model: CausalModel, micro_batches: Iterable[Tensor], *, alone: bool = True) -> str:
    """Return in words the first place, in the order of computation, that contains NaN or infinity.

    It looks at the weights, then at the output of each layer for the step's sequences, then at the gradients in the
    order of the backward pass. One of several processes looks only at what it holds, since it cannot run the model
    without the others.
    """
    return (
        spoilt_weight(model)
        or (_output(model, micro_batches) if alone else None)
        or _gradient(model)
        or "what this process holds is finite"
    )


def spoilt_weight(model: CausalModel) -> str | None:
    """Return in words the first weight of this process that is not finite; None if all are."""
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weight {name} is not finite"
    return None


def _output(model: CausalModel, micro_batches: Iterable[Tensor]) -> str | None:
    found: list[int] = []
    with torch.no_grad(), _watched(model.blocks, found):
        for ids_PT in micro_batches:
            try:
                model.with_routing(ids_PT)
            except LogitsNotFinite as error:
                return f"the router's logits in layer {error.layer} are not finite"
    return f"the output of layer {min(found)} is not finite" if found else None


def _gradient(model: CausalModel) -> str | None:
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name} is not finite"
    return None


@contextmanager
def _watched(blocks: nn.ModuleList, found: list[int]) -> Iterator[None]:
    """Record the number of each layer whose output is not finite."""

    def watch(number: int) -> Any:
        def look(block: nn.Module, inputs: Any, output: Any) -> None:
            x_BTD = output[0] if isinstance(output, tuple) else output
            if not _finite(x_BTD):
                found.append(number)

        return look

    handles = [block.register_forward_hook(watch(number)) for number, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _finite(tensor: Tensor) -> bool:
    return bool(local(tensor).isfinite().all())
