"""The slots of a batch ordered by in-layer expert: the metadata that every grouped product reads."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dispatch:
    """A stable ordering of the S = N * K slots by in-layer expert; slots that were dropped come last.

    Slot ``n * K + k`` is the k-th choice of token n, so the token of the slot at place s is
    ``slots_S[s] // active``.
    """

    slots_S: Tensor  #: The slot at each place of the ordering.
    places_S: Tensor  #: The place of each slot: the inverse of ``slots_S``.
    offsets_E1: Tensor  #: Expert e owns the places from offsets[e] up to offsets[e + 1]; E + 1 numbers.
    active: int  #: Slots of a token, K.

    @property
    def experts(self) -> int:
        """In-layer experts, E."""
        return self.offsets_E1.shape[0] - 1


def dispatch_slots(experts_NK: Tensor, experts: int) -> Dispatch:
    """Order the slots in plain torch: what the kernels that need no sort are tested against."""
    chosen_S = experts_NK.flatten()
    slots_S = chosen_S.argsort(stable=True)
    places_S = torch.empty_like(slots_S)
    places_S[slots_S] = torch.arange(slots_S.numel(), device=slots_S.device)
    counts_E = torch.bincount(chosen_S, minlength=experts + 1)[:experts]
    offsets_E1 = torch.zeros(experts + 1, dtype=counts_E.dtype, device=counts_E.device)
    torch.cumsum(counts_E, 0, out=offsets_E1[1:])
    return Dispatch(slots_S, places_S, offsets_E1, experts_NK.shape[1])
