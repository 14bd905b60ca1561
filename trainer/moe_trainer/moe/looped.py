"""Plain torch, one matrix product per in-layer expert: for the CPU, and for every type on any device.

What a product has read or written should still be in the cache when the next step wants it. So the ordered
slots are visited in pieces of about ROWS: the x of a visit is gathered, multiplied, activated and multiplied
again, in buffers that the next visit uses too. The in-layer experts of a visit share the gathers and the
elementwise steps; each has its own products. Slots' weights enter where a row is narrow: with x, with dy, and
where the rows of a token are added.

V rows of a visit; L rows of the longest. The pre-activation is laid out as (2, S, F), all gates before all
ups: from memory, a contiguous half is read faster than the halves of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch, combine, dispatch_slots
from moe_trainer.moe.kernels import Gradients

aten = torch.ops.aten

#: Rows of a visit: a few MiB at the sizes of presets, and enough for each product to run at its full rate.
ROWS = 1024


class Piece(NamedTuple):
    """Some rows of one in-layer expert."""

    expert: int
    rows: int
    again: bool  #: Others of this expert came before, so the gradients of its weights add up.


@dataclass
class Visit:
    """Pieces that lie one after the other in the ordering, from place ``first`` on."""

    first: int
    pieces: list[Piece] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of all pieces, V."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def places(self) -> slice:
        """The places of these rows."""
        return slice(self.first, self.first + self.rows)

    def split(self, rows_VI: Tensor) -> Sequence[Tensor]:
        """Return the rows of each piece."""
        return rows_VI.split_with_sizes([piece.rows for piece in self.pieces])


def plan_visits(dispatch: Dispatch) -> list[Visit]:
    """Cut crowded in-layer experts into equal pieces of about ROWS, and join small neighbours up to ROWS.

    Every in-layer expert has a piece: one without slots an empty piece, which sets its gradients to 0.
    """
    visits = [Visit(0)]
    for expert, (first, last) in enumerate(pairwise(dispatch.offsets_E1.tolist())):
        pieces = max(1, round((last - first) / ROWS))
        cuts = [first + (last - first) * piece // pieces for piece in range(pieces + 1)]
        for start, end in pairwise(cuts):
            if visits[-1].rows + end - start > ROWS:
                visits.append(Visit(start))
            visits[-1].pieces.append(Piece(expert, end - start, again=start > first))
    return visits


class LoopedKernels:
    """The products by torch's own matrix product, one in-layer expert after the other."""

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(
        self,
        x_ND: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        dispatch: Dispatch,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation."""
        visits = plan_visits(dispatch)
        slots, longest = len(dispatch.slots_S), max(visit.rows for visit in visits)
        hidden, inner = down_EDF.shape[1:]
        tokens_S = dispatch.slots_S // dispatch.active
        gate_up, down = _halves(gate_up_E2FD), down_EDF.mT.unbind()
        h_2SF = x_ND.new_empty(2, slots if keep else longest, inner)
        x_LD, a_LF = x_ND.new_empty(longest, hidden), x_ND.new_empty(longest, inner)
        rows_SD = _empty_rows(x_ND, slots, visits)
        for visit in visits:
            h_2VF = h_2SF[:, visit.places if keep else slice(visit.rows)]
            _up(visit, x_ND, tokens_S, gate_up, x_LD[: visit.rows], h_2VF)
            a_VF = aten.silu.out(h_2VF[0], out=a_LF[: visit.rows]).mul_(h_2VF[1])
            _multiply(visit, a_VF, down, rows_SD[visit.places])
        return combine(rows_SD, weights_NK, dispatch), h_2SF if keep else None

    def pre_activation(self, x_ND: Tensor, gate_up_E2FD: Tensor, dispatch: Dispatch) -> Tensor:
        """Return the pre-activation again, the same bits as in the forward pass: for recomputation."""
        visits = plan_visits(dispatch)
        tokens_S, gate_up = dispatch.slots_S // dispatch.active, _halves(gate_up_E2FD)
        h_2SF = x_ND.new_empty(2, len(tokens_S), gate_up_E2FD.shape[1] // 2)
        x_LD = x_ND.new_empty(max(visit.rows for visit in visits), x_ND.shape[1])
        for visit in visits:
            _up(visit, x_ND, tokens_S, gate_up, x_LD[: visit.rows], h_2SF[:, visit.places])
        return h_2SF

    def backward(
        self,
        dy_ND: Tensor,
        x_ND: Tensor,
        h_S2F: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        dispatch: Dispatch,
    ) -> Gradients:
        """Return the gradients of all four inputs."""
        visits = plan_visits(dispatch)
        longest = max(visit.rows for visit in visits)
        hidden, inner = down_EDF.shape[1:]
        tokens_S = dispatch.slots_S // dispatch.active
        weights_S1 = weights_NK.flatten()[dispatch.slots_S, None].to(x_ND.dtype)
        dweights_S = torch.zeros_like(weights_NK).flatten()
        dgate_up_E2FD, ddown_EDF = torch.empty_like(gate_up_E2FD), torch.empty_like(down_EDF)
        gate_up, down, dgate_up, ddown = (
            tensor.unbind() for tensor in (gate_up_E2FD, down_EDF, dgate_up_E2FD, ddown_EDF)
        )
        dx_SD = _empty_rows(x_ND, len(tokens_S), visits)
        rows_LD, dh_L2F = x_ND.new_empty(longest, hidden), x_ND.new_empty(longest, 2 * inner)
        a_LF, da_LF = x_ND.new_empty(2, longest, inner)
        for visit in visits:
            places, some = visit.places, slice(visit.rows)
            rows_VD, a_VF, da_VF, dh_V2F = rows_LD[some], a_LF[some], da_LF[some], dh_L2F[some]
            dy_VD = torch.index_select(dy_ND, 0, tokens_S[places], out=rows_VD)
            _multiply(visit, dy_VD, down, da_VF)
            dweights_S[places] = _swiglu_backward(h_S2F[:, places], da_VF, a_VF, dh_V2F)
            _outer(visit, dy_VD.mul_(weights_S1[places]), a_VF, ddown)
            x_VD = torch.index_select(x_ND, 0, tokens_S[places], out=rows_VD)
            _outer(visit, dh_V2F, x_VD.mul_(weights_S1[places]), dgate_up)
            _multiply(visit, dh_V2F, gate_up, dx_SD[places])
        dx_ND = combine(dx_SD, weights_NK, dispatch)
        return Gradients(dx_ND, dweights_S[dispatch.places_S].view_as(weights_NK), dgate_up_E2FD, ddown_EDF)


def _up(
    visit: Visit,
    x_ND: Tensor,
    tokens_S: Tensor,
    gate_up: tuple[Sequence[Tensor], Sequence[Tensor]],
    x_VD: Tensor,
    h_2VF: Tensor,
) -> None:
    """Gather the x of a visit and write its pre-activation."""
    torch.index_select(x_ND, 0, tokens_S[visit.places], out=x_VD)
    for weights, h_VF in zip(gate_up, h_2VF, strict=True):
        _multiply(visit, x_VD, weights, h_VF)


def _swiglu_backward(h_2VF: Tensor, da_VF: Tensor, a_VF: Tensor, dh_V2F: Tensor) -> Tensor:
    """Write a and dh, return the row sums of a * da, which are the weights' gradients; ``da_VF`` is used up."""
    gate_VF, up_VF = h_2VF
    dgate_VF, dup_VF = dh_V2F.chunk(2, dim=1)
    silu_VF = aten.silu.out(gate_VF, out=a_VF)
    torch.mul(da_VF, silu_VF, out=dup_VF)
    silu_VF.mul_(up_VF)
    dweights_V = torch.mul(a_VF, da_VF, out=dgate_VF).sum(dim=1)
    aten.silu_backward.grad_input(da_VF.mul_(up_VF), gate_VF, grad_input=dgate_VF)
    return dweights_V


def _multiply(visit: Visit, rows_VI: Tensor, weights: Sequence[Tensor], out_VO: Tensor) -> None:
    """Write each row times its expert's weights, which are I x O."""
    for piece, rows, out in zip(visit.pieces, visit.split(rows_VI), visit.split(out_VO), strict=True):
        torch.mm(rows, weights[piece.expert], out=out)


def _outer(visit: Visit, left_VO: Tensor, right_VI: Tensor, out: Sequence[Tensor]) -> None:
    """Write the sum of the rows' outer products, O x I for each expert; pieces of one expert add up."""
    for piece, left, right in zip(visit.pieces, visit.split(left_VO), visit.split(right_VI), strict=True):
        if piece.again:
            out[piece.expert].addmm_(left.T, right)
        else:
            torch.mm(left.T, right, out=out[piece.expert])


def _halves(gate_up_E2FD: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return each expert's gate and up weights, D x F."""
    gate_EFD, up_EFD = gate_up_E2FD.chunk(2, dim=1)
    return gate_EFD.mT.unbind(), up_EFD.mT.unbind()


def _empty_rows(x_ND: Tensor, slots: int, visits: list[Visit]) -> Tensor:
    """Return room for a row per slot; only those that no visit writes, of dropped slots, are set, to 0."""
    rows_SD = x_ND.new_empty(slots, x_ND.shape[1])
    rows_SD[visits[-1].places.stop :] = 0
    return rows_SD
