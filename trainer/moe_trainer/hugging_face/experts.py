"""The in-layer experts of transformers' models, computed by our layer.

    import moe_trainer.hugging_face.experts
    AutoModelForCausalLM.from_pretrained(folder, experts_implementation="moe-operator")

Importing this module registers the implementation with transformers. It computes gated in-layer experts with SiLU and
without biases, in transformers' usual layout (E, 2F, D): those of Qwen3-MoE, Mixtral, OLMoE, GLM-4.5, DeepSeek-V3 and
most others. For anything else it raises ValueError with the reason; ``refusal`` tells it in advance.

Shapes: N tokens, D hidden, E in-layer experts, K active per token, F inner width.
"""

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from moe_trainer.moe.experts import ExpertsFunction, swiglu_experts

#: The value of ``experts_implementation`` that selects our layer.
IMPLEMENTATION = "moe-operator"

_SILU = {"SiLU", "SiLUActivation"}


def refusal(experts: nn.Module) -> str | None:
    """Return why the in-layer experts of a layer cannot be computed here, or None."""
    if getattr(experts, "is_transposed", False) or not getattr(experts, "is_concatenated", True):
        return "its weights are transposed or interleaved"
    if getattr(experts, "has_bias", False):
        return "it has biases"
    if not getattr(experts, "has_gate", True):
        return "it has no gate"
    if getattr(experts, "has_post_expert_norm", False):
        return "it normalises the output of each in-layer expert"
    activation = type(getattr(experts, "act_fn", None)).__name__
    if activation not in _SILU:
        return f"its activation is {activation}, not SiLU"
    gate = getattr(type(experts), "_apply_gate", None)
    if gate is not None and gate.__module__ != "transformers.integrations.moe":
        return "it applies its gate in its own way"
    return None


def experts_forward(
    self: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Return the weighted outputs of each token's in-layer experts, in the type of the input.

    Under autocast the products are computed in its type. If the module has an attribute ``function``, it is called
    instead of swiglu_experts: it computes the same, cut over several processes.
    """
    reason = refusal(self)
    if reason is not None:
        raise ValueError(
            f"experts_implementation {IMPLEMENTATION!r} cannot compute {type(self).__name__}: {reason}. "
            "Load the model with experts_implementation='grouped_mm'"
        )
    gate_up_E2FD, down_EDF = self.gate_up_proj, self.down_proj
    assert isinstance(gate_up_E2FD, Tensor) and isinstance(down_EDF, Tensor)
    device = hidden_states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else gate_up_E2FD.dtype
    function: ExpertsFunction = getattr(self, "function", swiglu_experts)
    with torch.autocast(device, enabled=False):
        y_ND = function(
            hidden_states.flatten(0, -2).to(dtype),
            top_k_index,
            top_k_weights,
            gate_up_E2FD.to(dtype),
            down_EDF.to(dtype),
        )
    return y_ND.view_as(hidden_states).to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, experts_forward)
