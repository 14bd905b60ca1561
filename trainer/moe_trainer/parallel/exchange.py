"""Expert parallelism: each slot travels to the process that holds its in-layer expert, and its output travels back.

    here        order the slots by in-layer expert, and so by process; send rows, numbers and weights
    there       compute the layer's products; each received row counts as a token with one slot
    here        add up the K weighted outputs of each token

Processes first tell each other how many slots they send (one number per pair); then two exchanges of rows follow, and
two more in the backward pass. Nothing is dropped or padded.

Shapes: S slots that are sent, R rows that arrive, X processes; otherwise as in moe/.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from moe_trainer.moe.backends import Backend
from moe_trainer.moe.experts import swiglu_experts


def exchanged_experts(
    x_ND: Tensor,
    experts_NK: Tensor,
    weights_NK: Tensor,
    gate_up_E2FD: Tensor,
    down_EDF: Tensor,
    *,
    group: ProcessGroup,
    backend: Backend | None = None,
    recompute: bool = False,
) -> Tensor:
    """Return y_ND as swiglu_experts does; the group's r-th process must hold the in-layer experts r * E to (r + 1) * E - 1.

    E is the number of in-layer experts of this process. ``experts_NK`` numbers those of all processes; dropped slots
    have the number of all of them.
    """
    held, processes = gate_up_E2FD.shape[0], group.size()
    chosen_S = experts_NK.flatten()
    order_S = chosen_S.argsort(stable=True)
    owner_S = torch.div(chosen_S, held, rounding_mode="floor")
    sent = torch.bincount(owner_S, minlength=processes + 1)[
        :processes
    ]  # the last count is that of dropped slots
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    splits = (sent.tolist(), received.tolist())
    order_S = order_S[: sum(splits[0])]
    token_S = order_S // experts_NK.shape[1]

    rows_RD = _exchange(x_ND[token_S], splits, group)
    numbers_R = _exchange((chosen_S % held)[order_S], splits, group)
    weights_R = _exchange(weights_NK.flatten()[order_S], splits, group)
    out_RD = swiglu_experts(
        rows_RD,
        numbers_R[:, None],
        weights_R[:, None],
        gate_up_E2FD,
        down_EDF,
        backend=backend,
        recompute=recompute,
    )
    out_SD = _exchange(out_RD, (splits[1], splits[0]), group)
    return torch.zeros_like(x_ND).index_add(0, token_S, out_SD)


def _exchange(rows: Tensor, splits: tuple[list[int], list[int]], group: ProcessGroup) -> Tensor:
    exchanged: Tensor = _AllToAll.apply(rows, splits, group)  # type: ignore[no-untyped-call]
    return exchanged


class _AllToAll(torch.autograd.Function):
    """Send the first ``sent[0]`` rows to the first process of the group, and so on; backward sends gradients back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, splits: tuple[list[int], list[int]], group: ProcessGroup) -> Tensor:
        ctx.splits, ctx.group = splits, group
        sent, received = splits
        arrived = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
        return arrived

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        sent, received = ctx.splits
        returned = gradient.new_empty(sum(sent), *gradient.shape[1:])
        dist.all_to_all_single(returned, gradient.contiguous(), sent, received, group=ctx.group)
        return returned, None, None
