"""The launches of routing and decoding whose kernels are compiled without a GPU."""

from collections.abc import Callable

import torch

from moe_trainer.moe.router_function import route_by
from moe_trainer.moe.routing import RouterConfig
from moe_trainer.moe.triton.combine import combine
from moe_trainer.moe.triton.dispatch import dispatch_slots
from moe_trainer.moe.triton.router import FUSED

from .meta import meta, ordering
from .product_launches import Shape, skinny_launches


def _combine(tokens: int, hidden: int, active: int, weighted: bool) -> None:
    weights_NK = meta(tokens, active, dtype=torch.float32) if weighted else None
    combine(meta(tokens * active, hidden), ordering(tokens, 128, active), weights_NK)


def _route(tokens: int, config: RouterConfig, groups: int) -> None:
    """Forward and, through every output, backward."""
    logits_NE = meta(tokens, config.experts).requires_grad_()
    bias_E = meta(config.experts, dtype=torch.float32) if config.scores == "sigmoid" else None
    routing = route_by(FUSED, logits_NE, config, bias_E, groups)
    smooth = [routing.weights_NK, routing.probabilities_GE, routing.logsumexp_N]
    torch.autograd.grad(smooth, logits_NE, [torch.empty_like(output) for output in smooth])


_DEEPSEEK = RouterConfig(256, 8, scores="sigmoid", scale=2.5, expert_groups=8, chosen_groups=4)

ROUTING_LAUNCHES: dict[str, Callable[[], object]] = {
    "router, softmax, 8 of 128": lambda: _route(16384, RouterConfig(128, 8), groups=4),
    "router, sigmoid, 8 of 256 in groups": lambda: _route(16384, _DEEPSEEK, groups=4),
    "router, softmax, 4 of 4096": lambda: _route(64, RouterConfig(4096, 4), groups=1),
    "dispatch of 16384 tokens, 8 of 128": lambda: dispatch_slots(meta(16384, 8, dtype=torch.int64), 128),
    "dispatch of 64 tokens, 8 of 4096": lambda: dispatch_slots(meta(64, 8, dtype=torch.int64), 4096),
    "combine, weighted, hidden 2048": lambda: _combine(16384, 2048, 8, weighted=True),
    "combine, plain, hidden 1536": lambda: _combine(24576, 1536, 8, weighted=False),
    **skinny_launches(
        [
            Shape("qwen3-30b-a3b-t64", 64, 2048, 768, 128, 8),
            Shape("256 tokens, few experts", 256, 4096, 14336, 8, 2),
        ]
    ),
}
