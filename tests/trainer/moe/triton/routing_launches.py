"""The launches of routing and decoding whose kernels are compiled without a GPU."""

from collections.abc import Callable

import torch

from moe_trainer.moe.triton.combine import combine
from moe_trainer.moe.triton.dispatch import dispatch_slots

from .meta import meta, ordering


def _combine(tokens: int, hidden: int, active: int, weighted: bool) -> None:
    weights_NK = meta(tokens, active, dtype=torch.float32) if weighted else None
    combine(meta(tokens * active, hidden), ordering(tokens, 128, active), weights_NK)


ROUTING_LAUNCHES: dict[str, Callable[[], object]] = {
    "dispatch of 16384 tokens, 8 of 128": lambda: dispatch_slots(meta(16384, 8, dtype=torch.int64), 128),
    "dispatch of 64 tokens, 8 of 4096": lambda: dispatch_slots(meta(64, 8, dtype=torch.int64), 4096),
    "combine, weighted, hidden 2048": lambda: _combine(16384, 2048, 8, weighted=True),
    "combine, plain, hidden 1536": lambda: _combine(24576, 1536, 8, weighted=False),
}
