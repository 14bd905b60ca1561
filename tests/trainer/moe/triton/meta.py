"""Tensors that have sizes but no contents: what production code is called with when its kernels are only compiled."""

import torch

from moe_trainer.moe.dispatch import Dispatch


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Return a tensor without contents."""
    return torch.empty(shape, dtype=dtype, device="meta")


def ordering(tokens: int, experts: int, active: int) -> Dispatch:
    """Return the ordering of tokens * active slots, without contents."""
    slots_S, places_S, offsets_E1 = (
        meta(size, dtype=torch.int32) for size in (tokens * active, tokens * active, experts + 1)
    )
    return Dispatch(slots_S, places_S, offsets_E1, active)
