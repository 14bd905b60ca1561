"""The in-layer experts of any model: modules that are called with x_ND, experts_NK and weights_NK.

    ours               gate_up_E2FD (E, 2F, D)    down_EDF (E, D, F)      moe/layer.py
    transformers'      gate_up_proj               down_proj               hugging_face/experts.py

Shapes: E in-layer experts, N tokens, D hidden, K active per token, F inner width.
"""

from collections.abc import Mapping
from copy import deepcopy

from torch import Tensor, nn

from moe_trainer.moe.layer import InLayerExperts

#: The names of the presets' stacked weights in transformers.
_STACKED = {"gate_up_E2FD": "gate_up_proj", "down_EDF": "down_proj"}


def holds_in_layer_experts(module: nn.Module) -> bool:
    """Return whether a module, ours or transformers', computes the in-layer experts of a layer."""
    return isinstance(module, InLayerExperts) or hasattr(module, "_is_expert_parallel")


def stacked_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the stacked weights (E, outputs, inputs) of a module that holds in-layer experts; empty for others."""
    if getattr(module, "is_transposed", False):
        return {}
    return {
        name: weight
        for name, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3 and name.startswith(("gate_up", "down"))
    }


def with_weights(experts: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a module with other stacked weights, of any number E of in-layer experts."""
    own = stacked_weights(experts)
    memo: dict[int, object] = {id(own[name]): nn.Parameter(weight) for name, weight in weights.items()}
    made = deepcopy(experts, memo)
    if hasattr(made, "num_experts"):
        made.num_experts = len(next(iter(weights.values())))  # type: ignore[assignment]  # no submodule
    return made


def in_transformers(name: str) -> str:
    """Return the name in transformers of a module or parameter of our model or of a Decoder."""
    place, dot, last = name.rpartition(".")
    name = place + dot + _STACKED.get(last, last)
    return name.removeprefix("network.") if name.startswith("network.") else f"model.{name}"
