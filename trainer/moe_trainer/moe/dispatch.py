"""The slots of a batch, ordered by in-layer expert: the metadata that every grouped product needs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: One more than the largest number of 16 bits.
_INT16 = 1 << 15


@dataclass(frozen=True)
class Dispatch:
    """A stable ordering of the S = N * K slots by in-layer expert; dropped slots come last.

    Slot ``n * K + k`` is the k-th choice of token n, so the token of the slot at place s is ``slots_S[s] // active``.
    Everything is int32, so that what is kept for the backward pass takes half the bytes of int64.
    """

    slots_S: Tensor  #: The slot at each place of the ordering.
    places_S: Tensor  #: The place of each slot: the inverse of ``slots_S``.
    offsets_E1: (
        Tensor  #: In-layer expert e has the places from offsets[e] up to offsets[e + 1]; E + 1 numbers.
    )
    active: int  #: Slots per token, K.

    @cached_property
    def tokens_S(self) -> Tensor:
        """The token at each place of the ordering."""
        return self.slots_S // self.active

    @property
    def experts(self) -> int:
        """In-layer experts, E."""
        return self.offsets_E1.shape[0] - 1


def dispatch_slots(experts_NK: Tensor, experts: int) -> Dispatch:
    """Order the slots in plain torch, without waiting for a device; other implementations are tested against this one."""
    if experts_NK.device.type == "cpu" and experts < _INT16:
        return _dispatch_by_digits(experts_NK, experts)
    chosen_S, slots_S = experts_NK.flatten().sort(stable=True)
    order_S = torch.arange(slots_S.numel(), dtype=torch.int32, device=slots_S.device)
    places_S = torch.empty_like(order_S).scatter_(0, slots_S, order_S)
    bounds_E1 = torch.arange(experts + 1, dtype=chosen_S.dtype, device=slots_S.device)
    offsets_E1 = torch.searchsorted(chosen_S, bounds_E1, out_int32=True)
    return Dispatch(slots_S.int(), places_S, offsets_E1, experts_NK.shape[1])


def _dispatch_by_digits(experts_NK: Tensor, experts: int) -> Dispatch:
    """Order the slots in numpy, whose radix sort of 16-bit numbers takes a fifth of the time of torch's sort."""
    chosen_S = experts_NK.numpy().ravel()
    slots_S = chosen_S.astype(np.int16).argsort(kind="stable").astype(np.int32)
    places_S = np.empty_like(slots_S)
    places_S[slots_S] = np.arange(len(slots_S), dtype=np.int32)
    offsets_E1 = np.zeros(experts + 1, dtype=np.int32)
    offsets_E1[1:] = np.bincount(chosen_S, minlength=experts)[:experts].cumsum()
    slots, places, offsets = (torch.from_numpy(array) for array in (slots_S, places_S, offsets_E1))
    return Dispatch(slots, places, offsets, experts_NK.shape[1])


def combine(rows_SD: Tensor, weights_NK: Tensor, dispatch: Dispatch) -> Tensor:
    """Return y_ND: the weighted sum of the rows of a token's slots, in plain torch.

    ``rows_SD`` is in the order of places, with zeros at the places of dropped slots. Each token gathers its own
    rows, so nothing is added atomically and the result has the same bits every time.
    """
    places_NK, weights_NK = dispatch.places_S.view_as(weights_NK), weights_NK.to(rows_SD.dtype)
    return F.embedding_bag(places_NK, rows_SD, mode="sum", per_sample_weights=weights_NK)
