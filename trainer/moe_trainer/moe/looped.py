"""The in-layer experts in plain torch, with separate matrix products per expert: for the CPU, and for every type on any device.

What a product has read or written should still be in the cache when the next step needs it. So the ordered slots are
visited in pieces of some hundred rows (visits.py): the x of a visit is gathered, multiplied, activated and multiplied
again, in buffers that the next visit reuses. The in-layer experts of a visit share the gathers and the elementwise
steps; each has its own products.

The elementwise steps are methods, which moe/native replaces by single passes in C. The pre-activation is laid out as
(2, S, F), all gates before all ups: elementwise steps on a contiguous half take two thirds of the time of those on
halves of rows.

For few slots, as in decoding, one grouped product computes all in-layer experts. With a handful of rows each, the time
goes into the number of calls and not into the products. The rows lie as in the loop, so the result has the same bits.

Shapes: L rows of the longest visit; I and O columns.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import Dispatch, combine, dispatch_slots
from moe_trainer.moe.kernels import Gradients, Inputs
from moe_trainer.moe.visits import Visit, cut, plan_visits, visit_rows

aten = torch.ops.aten


class LoopedKernels:
    """The products by torch's own matrix multiplication, one in-layer expert after the other."""

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(self, inputs: Inputs, *, keep: bool, again: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation."""
        if not (keep or again) and suits(inputs):
            return skinny_forward(inputs), None
        x_ND, down_EDF, dispatch = inputs.x_ND, inputs.down_EDF, inputs.dispatch
        hidden, inner = down_EDF.shape[1:]
        visits = plan_visits(dispatch, visit_rows(hidden, inner), every=keep or again)
        slots, longest = len(dispatch.slots_S), max(visit.rows for visit in visits)
        h_2SF = x_ND.new_empty(2, slots if keep else longest, inner)
        a_LF, rows_SD = x_ND.new_empty(longest, inner), _empty_rows(x_ND, slots, visits)
        down = down_EDF.mT.unbind()
        hs = self._up(visits, inputs, h_2SF)
        for visit, (gate, up), rows in zip(visits, hs, cut(visits, rows_SD), strict=True):
            a = a_LF[: visit.rows]
            self.activate(gate, up, a, keep or again)
            _multiply(visit, visit.pieces_of(a), down, visit.pieces_of(rows))
        return combine(rows_SD, inputs.weights_NK, dispatch), h_2SF if keep else None

    def pre_activation(self, inputs: Inputs) -> Tensor:
        """Compute the pre-activation again, with the same bits as in the forward pass: for recomputation."""
        hidden, inner = inputs.down_EDF.shape[1:]
        visits = plan_visits(inputs.dispatch, visit_rows(hidden, inner))
        h_2SF = inputs.x_ND.new_empty(2, len(inputs.dispatch.slots_S), inner)
        for _ in self._up(visits, inputs, h_2SF):
            pass
        return h_2SF

    def backward(self, inputs: Inputs, dy_ND: Tensor, h_S2F: Tensor) -> Gradients:
        """Return the gradients of all four inputs."""
        x_ND, weights_NK, dispatch = inputs.x_ND, inputs.weights_NK, inputs.dispatch
        gate_up_E2FD, down_EDF = inputs.gate_up_E2FD, inputs.down_EDF
        hidden, inner = down_EDF.shape[1:]
        visits = plan_visits(dispatch, visit_rows(hidden, inner))
        slots, longest = len(dispatch.slots_S), max(visit.rows for visit in visits)
        weights_S1 = weights_NK.flatten()[dispatch.slots_S, None].to(x_ND.dtype)
        dweights_S = x_ND.new_zeros(slots)
        dgate_up_E2FD, ddown_EDF = torch.empty_like(gate_up_E2FD), torch.empty_like(down_EDF)
        gate_up, down, dgate_up, ddown = (
            tensor.unbind() for tensor in (gate_up_E2FD, down_EDF, dgate_up_E2FD, ddown_EDF)
        )
        dx_SD = _empty_rows(x_ND, slots, visits)
        rows_LD, dh_L2F = x_ND.new_empty(longest, hidden), x_ND.new_empty(longest, 2 * inner)
        a_LF, da_LF = x_ND.new_empty(2, longest, inner)
        by_place = (cut(visits, rows) for rows in (weights_S1, dweights_S, *h_S2F, dx_SD))
        for visit, weights, dweights, gate, up, dx in zip(visits, *by_place, strict=True):
            rows, a, da, dh = (rows_LI[: visit.rows] for rows_LI in (rows_LD, a_LF, da_LF, dh_L2F))
            rows_pieces, dh_pieces = visit.pieces_of(rows), visit.pieces_of(dh)
            self.gather(dy_ND, dispatch, visit, rows)
            _multiply(visit, rows_pieces, down, visit.pieces_of(da))
            self.activate_backward(gate, up, da, weights, a, dh, dweights)
            _outer(visit, rows_pieces, visit.pieces_of(a), ddown)
            self.gather(x_ND, dispatch, visit, rows)
            _outer(visit, dh_pieces, rows_pieces, dgate_up)
            _multiply(visit, dh_pieces, gate_up, visit.pieces_of(dx))
        dx_ND = combine(dx_SD, torch.ones_like(weights_NK), dispatch)
        dweights_NK = dweights_S[dispatch.places_S].view_as(weights_NK).to(weights_NK.dtype)
        return Gradients(dx_ND, dweights_NK, dgate_up_E2FD, ddown_EDF)

    def gather(self, x_ND: Tensor, dispatch: Dispatch, visit: Visit, rows_VD: Tensor) -> None:
        """Write the rows of x that a visit's slots use."""
        tokens_V = dispatch.tokens_S[visit.first : visit.first + visit.rows]
        torch.index_select(x_ND, 0, tokens_V, out=rows_VD)

    def activate(self, gate_VF: Tensor, up_VF: Tensor, a_VF: Tensor, keep: bool) -> None:
        """Write the activation of a visit's rows; ``keep`` says that a backward pass will follow."""
        aten.silu.out(gate_VF, out=a_VF).mul_(up_VF)

    def activate_backward(
        self,
        gate_VF: Tensor,
        up_VF: Tensor,
        da_VF: Tensor,
        weights_V1: Tensor,
        a_VF: Tensor,
        dh_V2F: Tensor,
        dweights_V: Tensor,
    ) -> None:
        """Write a and dh, both times the slots' weights, and the weights' gradients; ``da_VF`` is overwritten.

        The weights' gradients are the row sums of a * da before either is weighted.
        """
        dgate_VF, dup_VF = dh_V2F.chunk(2, dim=1)
        silu_VF = aten.silu.out(gate_VF, out=a_VF)
        torch.mul(da_VF, silu_VF, out=dup_VF)
        torch.mul(dup_VF, up_VF, out=dgate_VF)
        dweights_V.copy_(dgate_VF.sum(dim=1))
        dup_VF.mul_(weights_V1)
        silu_VF.mul_(up_VF).mul_(weights_V1)
        aten.silu_backward.grad_input(da_VF.mul_(up_VF).mul_(weights_V1), gate_VF, grad_input=dgate_VF)

    def _up(self, visits: Sequence[Visit], inputs: Inputs, h_2SF: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Write the pre-activation of one visit after the other, and yield its gates and ups.

        If ``h_2SF`` has fewer rows than there are places, the visits share them.
        """
        x_ND, dispatch = inputs.x_ND, inputs.dispatch
        gate_weights, up_weights = (half.mT.unbind() for half in inputs.gate_up_E2FD.chunk(2, dim=1))
        x_LD = x_ND.new_empty(max(visit.rows for visit in visits), x_ND.shape[1])
        if h_2SF.shape[1] == len(dispatch.slots_S):
            gates, ups = (cut(visits, half_SF) for half_SF in h_2SF)
        else:
            gates, ups = ([half_LF[: visit.rows] for visit in visits] for half_LF in h_2SF)
        for visit, gate, up in zip(visits, gates, ups, strict=True):
            x = x_LD[: visit.rows]
            self.gather(x_ND, dispatch, visit, x)
            x_pieces = visit.pieces_of(x)
            _multiply(visit, x_pieces, gate_weights, visit.pieces_of(gate))
            _multiply(visit, x_pieces, up_weights, visit.pieces_of(up))
            yield gate, up


def _multiply(visit: Visit, rows: Sequence[Tensor], weights: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Write each piece's rows times its expert's weights, which are I x O."""
    for piece, rows_VI, out_VO in zip(visit.pieces, rows, out, strict=True):
        torch.mm(rows_VI, weights[piece.expert], out=out_VO)


def _outer(visit: Visit, left: Sequence[Tensor], right: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Write the sum of the rows' outer products, O x I for each expert; several pieces of an expert add up."""
    for piece, left_VO, right_VI in zip(visit.pieces, left, right, strict=True):
        if piece.again:
            out[piece.expert].addmm_(left_VO.T, right_VI)
        else:
            torch.mm(left_VO.T, right_VI, out=out[piece.expert])


def _empty_rows(x_ND: Tensor, slots: int, visits: Sequence[Visit]) -> Tensor:
    """Return room for one row per slot; only the rows of dropped slots, which no visit writes, are set to 0."""
    rows_SD = x_ND.new_empty(slots, x_ND.shape[1])
    rows_SD[visits[-1].first + visits[-1].rows :] = 0
    return rows_SD


#: For more slots than this, the loop makes better use of the cache.
MOST_SLOTS = 512
#: The types that torch's grouped product computes in.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: The grouped product needs rows that are multiples of this many bytes.
ALIGNMENT = 16


def suits(inputs: Inputs) -> bool:
    """Return whether the grouped products can compute a batch, and do so fast."""
    x_ND, gate_up_E2FD, down_EDF = inputs.x_ND, inputs.gate_up_E2FD, inputs.down_EDF
    width = x_ND.element_size()
    return (
        0 < len(inputs.dispatch.slots_S) <= MOST_SLOTS
        and x_ND.device.type == "cpu"
        and x_ND.dtype in DTYPES
        and all(width * size % ALIGNMENT == 0 for size in down_EDF.shape[1:])
        and gate_up_E2FD.is_contiguous()
        and down_EDF.is_contiguous()
        and hasattr(F, "grouped_mm")
    )


def skinny_forward(inputs: Inputs) -> Tensor:
    """Return y_ND, without what a backward pass would need."""
    dispatch = inputs.dispatch
    ends_E = dispatch.offsets_E1[1:]
    x_SD = inputs.x_ND.index_select(0, dispatch.slots_S // dispatch.active)
    gate_EDF, up_EDF = inputs.gate_up_E2FD.mT.chunk(2, dim=2)
    a_SF = F.silu(F.grouped_mm(x_SD, gate_EDF, offs=ends_E))
    a_SF *= F.grouped_mm(x_SD, up_EDF, offs=ends_E)
    rows_SD = F.grouped_mm(a_SF, inputs.down_EDF.mT, offs=ends_E)
    rows_SD[int(ends_E[-1]) :] = 0  # the rows of dropped slots, which the product does not write
    return combine(rows_SD, inputs.weights_NK, dispatch)
