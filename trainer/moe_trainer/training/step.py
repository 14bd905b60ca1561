"""One optimizer step.

    loss = cross-entropy + w_lb * load-balancing loss + w_z * router z-loss      (means over layers)
                         + w_s * specialization loss + lambda * KL(base || model) on replayed text (base_losses.py)

The cross-entropy is the mean over the tokens that are learnt: all of a text, and the answers of a conversation. A step may
have none, for example if all of its sequences are parts of one long question. Then it has no cross-entropy.

A step's batch is divided among the processes of the run, and a share may be cut into micro-batches. Their gradients
add up; each counts by its share of the step's sequences, and for the cross-entropy of its learnt tokens. So the
z-loss and the cross-entropy are those of the whole batch, however it was cut.

Shapes: B sequences, P sequences of a micro-batch, T tokens, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.parallel.spread import clip_gradients, sum_gradients
from moe_trainer.streaming.batches import IGNORED, MicroBatch
from moe_trainer.streaming.tokens import number_of
from moe_trainer.training.not_finite import check_step, router_not_finite
from moe_trainer.training.run import Run


def take_step(run: Run) -> float | None:
    """Take one optimizer step and return its cross-entropy in nats per token; None if none of its tokens is learnt.

    All processes of the run take it together and return the same. Raises JobError (LossNotFinite), in all of them,
    before any parameter is changed.
    """
    processes, parts = run.processes, run.batches.in_parts(run.step, run.mine, run.parts)
    # A base may draw numbers in its passes, for dropout or noise in its routers: the same ones in every attempt.
    torch.manual_seed(number_of(f"{run.job.seed} step {run.step} process {processes.rank}"))
    learnt = int(processes.sum(torch.stack([(part.targets_BT != IGNORED).sum() for part in parts]).sum()))
    run.model.zero_grad()
    try:
        figures = torch.stack([_backward(run, part, max(1, learnt)) for part in parts])
        sum_gradients(run.model, processes)
        norm = clip_gradients(run.model, run.job.training.gradient_clip, processes)
    except LogitsNotFinite as error:
        raise router_not_finite(run, error.layer) from None
    cross_entropy, loss = (float(figure) for figure in processes.sum(figures.sum(dim=0)))
    run.loads = run.balancer.loads()
    check_step(run, loss, norm, [part.ids_BT for part in parts])
    run.optimizer.step(run.rate)
    run.balancer.finish_step()
    return cross_entropy if learnt else None


def _backward(run: Run, part: MicroBatch, learnt: int) -> Tensor:
    """Add a micro-batch's gradients; return its part of the step's cross-entropy and of the whole loss.

    ``learnt`` is the number of learnt tokens of the whole step, at least 1.
    """
    logits_BTV, routings = run.model.with_routing(part.ids_BT, part.positions_BT)
    nats = F.cross_entropy(
        logits_BTV.flatten(0, 1), part.targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    cross_entropy = nats / learnt
    share = len(part.ids_BT) / run.batches.rows
    loss = cross_entropy + share * run.balancer.loss(routings)
    if run.base_losses is not None:
        loss = loss + share * run.base_losses.loss(part, logits_BTV)
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.stack((cross_entropy, loss)).detach()
