"""The router: which in-layer experts a token uses, and with what weight.

    softmax    scores s = softmax(logits)
    sigmoid    scores s = sigmoid(logits)                        (DeepSeek-AI, "DeepSeek-V3", 2024)
    choice     the K largest of s + bias, within the best expert groups; a group is ranked by its best score
               (softmax; DeepSeek-V2) or by the sum of its two best scores (sigmoid; DeepSeek-V3)
    weights    s of the chosen ones, without the bias; renormalised to sum 1 and scaled if the config says so

It is computed by plain_router.py, by triton/router.py (fused) or by native/router.py (in C); backends.py chooses.
balance.py says what the bias is for and how it moves, capacity.py which slots are dropped.
"""

import math

from torch import Tensor

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.kernels import on_device_of
from moe_trainer.moe.router_function import RouterCase, route_by
from moe_trainer.moe.routing import RouterConfig, Routing


class LogitsNotFinite(ValueError):
    """A router's logits contain NaN or infinity; ``layer`` is its number, if known."""

    def __init__(self, layer: int | None = None) -> None:
        self.layer = layer
        place = "" if layer is None else f" of layer {layer}"
        super().__init__(
            f"the router's logits{place} hold NaN or infinity: the weights or the input before it are no "
            "longer finite. Lower the learning rate, clip gradients, or go back to an earlier checkpoint."
        )


def route(
    logits_NE: Tensor,
    config: RouterConfig,
    bias_E: Tensor | None = None,
    groups: int = 1,
    *,
    layer: int | None = None,
    backend: Backend | None = None,
) -> Routing:
    """Return the routing of N tokens, which are ``groups`` sequences of the same length, one after the other.

    It is computed in fp32, or in fp64 if the logits are. ``bias_E`` affects only the choice. ``backend`` is that of the
    in-layer experts, where it is forced; if it has no router for this case, the plain router is used.

    Raises ValueError if sizes do not fit, and on the CPU LogitsNotFinite, naming ``layer``. On a device checking would
    mean waiting for it: there ``Routing.finite`` tells, and the choice is any valid one.
    """
    _check(logits_NE, config, bias_E, groups)
    passes = backends.router(RouterCase.of(logits_NE, config), backend)
    with on_device_of(logits_NE):
        routing = route_by(passes, logits_NE, config, bias_E, groups)
    if logits_NE.device.type == "cpu" and not math.isfinite(routing.logit_rms):
        raise LogitsNotFinite(layer)
    return routing


def _check(logits_NE: Tensor, config: RouterConfig, bias_E: Tensor | None, groups: int) -> None:
    if logits_NE.dim() != 2 or logits_NE.shape[1] != config.experts:
        raise ValueError(
            f"logits have shape {list(logits_NE.shape)}, but the router has {config.experts} in-layer experts: "
            f"pass N x {config.experts}"
        )
    if groups < 1 or logits_NE.shape[0] % groups:
        raise ValueError(
            f"{logits_NE.shape[0]} tokens are not {groups} sequences of the same length: groups must divide their number"
        )
    if bias_E is not None and bias_E.shape != (config.experts,):
        raise ValueError(f"bias has shape {list(bias_E.shape)}, but must have {config.experts} numbers")
