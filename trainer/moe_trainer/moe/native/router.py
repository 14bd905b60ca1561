"""The router with its two passes in C."""

import ctypes

import torch
from torch import Tensor

from moe_trainer.moe.native.library import library
from moe_trainer.moe.router_function import OutputGradients, Outputs, Passes
from moe_trainer.moe.routing import RouterConfig

#: Number of tokens that are computed together; as in router.c.
LANES = 16


class _Router(ctypes.Structure):
    """The struct Router of router.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("groups", "length", "experts", "active")),
        *((name, ctypes.c_int32) for name in ("softmax", "renormalise")),
        ("scale", ctypes.c_float),
    )


def _forward(logits_NE: Tensor, bias_E: Tensor | None, config: RouterConfig, groups: int) -> Outputs:
    logits_NE = logits_NE.detach().contiguous()
    bias_E = None if bias_E is None else bias_E.float().contiguous()
    tokens, experts = logits_NE.shape
    experts_NK = torch.empty(tokens, config.active, dtype=torch.int64)
    weights_NK, logsumexp_N = torch.empty(tokens, config.active), torch.empty(tokens)
    counts_GE = torch.zeros(groups, experts, dtype=torch.int64)
    means_GE = torch.zeros(groups, experts, dtype=torch.float64)
    room = torch.empty(2 * (experts + config.active), LANES)
    squares = library().route(
        logits_NE.data_ptr(),
        _pointer(bias_E),
        _described(config, groups, tokens),
        room.data_ptr(),
        *(tensor.data_ptr() for tensor in (experts_NK, weights_NK, counts_GE, means_GE, logsumexp_N)),
    )
    probabilities_GE = (means_GE / max(1, tokens // groups)).float()
    logit_rms = torch.tensor((squares / max(1, logits_NE.numel())) ** 0.5)
    return experts_NK, weights_NK, counts_GE, probabilities_GE, logsumexp_N, logit_rms


def _backward(
    logits_NE: Tensor,
    experts_NK: Tensor,
    logsumexp_N: Tensor,
    gradients: OutputGradients,
    config: RouterConfig,
    groups: int,
) -> Tensor:
    logits_NE = logits_NE.contiguous()
    given = [None if gradient is None else gradient.contiguous() for gradient in gradients]
    dlogits_NE, room = torch.empty_like(logits_NE), torch.empty(3 * config.experts, LANES)
    library().route_backward(
        *(tensor.data_ptr() for tensor in (logits_NE, experts_NK, logsumexp_N)),
        *map(_pointer, given),
        _described(config, groups, len(logits_NE)),
        room.data_ptr(),
        dlogits_NE.data_ptr(),
    )
    return dlogits_NE


NATIVE = Passes(_forward, _backward)


def _described(config: RouterConfig, groups: int, tokens: int) -> object:
    softmax = config.scores == "softmax"
    sizes = (groups, tokens // groups, config.experts, config.active)
    return ctypes.byref(_Router(*sizes, softmax, config.renormalise, config.scale))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
