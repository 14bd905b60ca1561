"""One optimizer step.

    loss = cross-entropy + w_lb * load-balancing loss + w_z * router z-loss      (means over layers)
                         + w_s * specialization loss + lambda * KL(base || model) on replayed text (base_losses.py)

The cross-entropy is the mean over the tokens that are learnt: all of a text, the answers of a conversation.

A step's batch is shared out to the processes of the run, and a share may be cut into micro-batches. All their
gradients add up: each counts by its share of the step's sequences, and of the learnt tokens, so that the z-loss
and the cross-entropy are those of the whole batch however it was cut.

Shapes: B sequences, P sequences of a micro-batch, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.parallel.spread import clip_gradients, sum_gradients
from moe_trainer.streaming.batches import IGNORED
from moe_trainer.training.not_finite import loss_not_finite, origin, router_not_finite
from moe_trainer.training.optimization import learning_rate
from moe_trainer.training.run import Run


def take_step(run: Run) -> float:
    """Take one optimizer step and return its cross-entropy in nats per token.

    All processes of the run take it together and return the same. Raises JobError (LossNotFinite), in all of
    them, before a parameter is touched.
    """
    spec, processes = run.job.training, run.processes
    ids_BT = run.batches.batch(run.step, run.mine)[:, :-1]
    targets_BT = run.batches.targets(run.step, run.mine)
    replayed_B = run.batches.replayed(run.step, run.mine)
    learnt = max(1, int(processes.sum((targets_BT != IGNORED).sum())))
    micro_batches = processes.layout.micro_batches(run.batches.rows, run.rows)
    run.optimizer.clear_gradients()
    parts = [
        _backward(run, *part, share=len(part[0]) / run.batches.rows, learnt=learnt)
        for part in zip(
            ids_BT.tensor_split(micro_batches),
            targets_BT.tensor_split(micro_batches),
            replayed_B.tensor_split(micro_batches),
            strict=True,
        )
    ]
    cross_entropy, total = (float(figure) for figure in processes.sum(torch.stack(parts).sum(dim=0)))
    sum_gradients(run.model, processes)
    norm = clip_gradients(run.model, spec.gradient_clip, processes)
    run.loads = run.balancer.loads()
    for layer, load in enumerate(run.loads):
        if not math.isfinite(load.logit_rms):
            raise router_not_finite(run, layer)
    if not (math.isfinite(total) and math.isfinite(norm)):
        where = origin(run.model, ids_BT.tensor_split(micro_batches), alone=processes.alone)
        raise loss_not_finite(run, f"the loss is {total} and the gradient's norm {norm}: {where}")
    run.optimizer.step(learning_rate(spec, run.step, run.steps))
    run.balancer.finish_step()
    return cross_entropy


def _backward(
    run: Run, ids_BT: Tensor, targets_BT: Tensor, replayed_B: Tensor, *, share: float, learnt: int
) -> Tensor:
    """Add a micro-batch's gradients; return its part of the step's cross-entropy and of the whole loss."""
    positions_BT = run.positions(ids_BT)
    try:
        logits_BTV, routings = run.model.with_routing(ids_BT, positions_BT)
    except LogitsNotFinite as error:
        raise router_not_finite(run, error.layer) from None
    nats = F.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    cross_entropy = nats / learnt
    loss = cross_entropy + share * run.balancer.loss(routings)
    if run.base_losses is not None:
        loss = loss + share * run.base_losses.loss(ids_BT, targets_BT, logits_BTV, replayed_B, positions_BT)
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.stack((cross_entropy, loss)).detach()
