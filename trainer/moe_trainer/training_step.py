"""One optimizer step.

    loss = cross-entropy + w_lb * load-balancing loss + w_z * router z-loss      (means over layers)

The cross-entropy is the mean over the tokens that are learnt: all of a text, the answers of a conversation.

A step's batch may be cut into micro-batches, whose gradients add up: each counts by its share of the
sequences, and of the learnt tokens, so that the z-loss and the cross-entropy are those of the whole batch.

Shapes: B sequences, P sequences of a micro-batch, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.data.batches import IGNORED
from moe_trainer.failure import JobError
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.optimization import learning_rate
from moe_trainer.training_run import Run


def take_step(run: Run) -> float:
    """Take one optimizer step and return its cross-entropy in nats per token.

    Raises JobError (LossNotFinite) before a parameter is touched.
    """
    spec = run.job.training
    ids_BT, targets_BT = run.batches.batch(run.step)[:, :-1], run.batches.targets(run.step)
    learnt = max(1, int((targets_BT != IGNORED).sum()))
    micro_batches = zip(torch.split(ids_BT, run.rows), torch.split(targets_BT, run.rows), strict=True)
    run.optimizer.clear_gradients()
    parts = [
        _backward(run, ids_PT, targets_PT, share=len(ids_PT) / len(ids_BT), learnt=learnt)
        for ids_PT, targets_PT in micro_batches
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


def _backward(run: Run, ids_BT: Tensor, targets_BT: Tensor, *, share: float, learnt: int) -> Tensor:
    """Add a micro-batch's gradients; return its part of the step's cross-entropy and of the whole loss."""
    try:
        logits_BTV, routings = run.model.with_routing(ids_BT)
    except LogitsNotFinite as error:
        raise _router_not_finite(run, error.layer) from None
    nats = F.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    cross_entropy = nats / learnt
    loss = cross_entropy + share * run.balancer.loss(routings)
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.stack((cross_entropy, loss)).detach()


def _router_not_finite(run: Run, layer: int | None) -> JobError:
    where = "a layer" if layer is None else f"layer {layer}"
    return _not_finite(run, f"the router's logits in {where} are not finite")


def _not_finite(run: Run, found: str) -> JobError:
    return JobError(
        "LossNotFinite",
        f"at step {run.step + 1} of {run.steps} {found}. Lower training.learningRate "
        f"(now {run.job.training.learning_rate}) or look at the data.",
    )
