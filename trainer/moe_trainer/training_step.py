"""One optimizer step.

    loss = cross-entropy + w_lb * load-balancing loss + w_z * router z-loss      (means over layers)

A step's batch may be cut into micro-batches, whose gradients add up: each counts by its share of the
sequences, so that the cross-entropy and the z-loss are those of the whole batch.

Shapes: B sequences, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.failure import JobError
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.optimization import learning_rate
from moe_trainer.training_run import Run


def take_step(run: Run) -> float:
    """Take one optimizer step and return its cross-entropy in nats per token.

    Raises JobError (LossNotFinite) before a parameter is touched.
    """
    spec, ids_BT = run.job.training, run.batches.batch(run.step)
    run.optimizer.clear_gradients()
    parts = [
        _backward(run, part_BT, share=len(part_BT) / len(ids_BT)) for part_BT in torch.split(ids_BT, run.rows)
    ]
    cross_entropy, total = (float(figure) for figure in torch.stack(parts).sum(dim=0))
    norm = float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), spec.gradient_clip))
    run.loads = run.balancer.loads()
    for layer, load in enumerate(run.loads):
        if not math.isfinite(load.logit_rms):
            raise _router_not_finite(run, layer)
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise _not_finite(run, f"the loss is {total} and the gradient's norm {norm}")
    run.optimizer.step(learning_rate(spec, run.step, run.steps))
    run.balancer.finish_step()
    return cross_entropy


def _backward(run: Run, ids_BT: Tensor, share: float) -> Tensor:
    """Add a micro-batch's gradients; return its part of the step's cross-entropy and of the whole loss."""
    try:
        logits_BTV, routings = run.model.with_routing(ids_BT[:, :-1])
    except LogitsNotFinite as error:
        raise _router_not_finite(run, error.layer) from None
    cross_entropy = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
    loss = share * (cross_entropy + run.balancer.loss(routings))
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.stack((share * cross_entropy, loss)).detach()


def _router_not_finite(run: Run, layer: int | None) -> JobError:
    where = "a layer" if layer is None else f"layer {layer}"
    return _not_finite(run, f"the router's logits in {where} are not finite")


def _not_finite(run: Run, found: str) -> JobError:
    return JobError(
        "LossNotFinite",
        f"at step {run.step + 1} of {run.steps} {found}. Lower training.learningRate "
        f"(now {run.job.training.learning_rate}) or look at the data.",
    )
