"""Replaces routers in transformers' models by ours, which choose the same and return a Routing that can be balanced.

In transformers a router is a module with a weight of E x D that returns (logits, weights, choice). Ours takes over the
weight under its name, so that nothing changes on disk. Routers that choose in another way are left alone: their layers
are trained, but their load is neither measured nor balanced.

Shapes: N tokens, D hidden, E in-layer experts, K active per token.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.moe.capacity import drop_beyond_capacity
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig, Routing

#: Softmax; the config says whether the weights of a token are made to sum to 1.
_SOFTMAX = {
    "FlexOlmoTopKRouter",
    "OlmoeTopKRouter",
    "Qwen2MoeTopKRouter",
    "Qwen3MoeTopKRouter",
    "Qwen3NextTopKRouter",
}
#: Softmax; the weights of a token sum to 1.
_SOFTMAX_OF_CHOSEN = {"GraniteMoeTopKRouter", "MiniMaxTopKRouter", "MixtralTopKRouter"}
#: Sigmoid, with a selection bias and groups of in-layer experts.
_SIGMOID = {"DeepseekV3TopkRouter", "Glm4MoeTopkRouter"}


class Router(nn.Module):
    """A router that remembers its routing while a pass is being recorded."""

    def __init__(
        self, weight_ED: nn.Parameter, router: RouterConfig, bias_E: Tensor | None, layer: int
    ) -> None:
        """Make router number ``layer`` of a network; errors name the number."""
        super().__init__()
        self.layer = layer
        self.weight = weight_ED
        self.router = router
        self.capacity_factor: float | None = None
        if bias_E is not None:
            self.register_buffer("e_score_correction_bias", bias_E)
        self.beside: nn.Module | None = None  #: Computes the final logits from x_ND and logits_NE.
        self.sequences = 1  #: The number of sequences in a pass, whose tokens follow each other.
        self._recording = False
        self._routing: Routing | None = None

    @property
    def bias_E(self) -> Tensor | None:
        """The selection bias, if the architecture has one."""
        bias_E = getattr(self, "e_score_correction_bias", None)
        assert bias_E is None or isinstance(bias_E, Tensor)
        return bias_E

    @property
    def rows_ED(self) -> nn.Parameter:
        """The router's weight, one row per in-layer expert."""
        return self.weight

    def record(self) -> None:
        """Record the next pass."""
        self._recording, self._routing = True, None

    def recorded(self) -> Routing:
        """Return the recorded routing, and stop recording, since the pass may be run again for its activations."""
        assert self._routing is not None, "the model has not passed this router"
        routing, self._routing, self._recording = self._routing, None, False
        return routing

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits_NE, weights_NK and the choice, experts_NK."""
        x_ND = hidden_states.reshape(-1, self.weight.shape[1])
        if self.router.scores == "sigmoid":
            x_ND = x_ND.float()
        logits_NE = F.linear(x_ND, self.weight.to(x_ND.dtype))
        if self.beside is not None:
            logits_NE = self.beside(x_ND, logits_NE)
        routing = route(logits_NE, self.router, self.bias_E, self.sequences, layer=self.layer)
        if self.capacity_factor is not None and self.training:
            routing = drop_beyond_capacity(routing, self.capacity_factor)
        if self._recording:
            self._routing = routing
        return logits_NE, routing.weights_NK, routing.experts_NK


def replace_routers(network: nn.Module) -> list[Router]:
    """Replace the routers of the kinds that we know by ours, and return ours, first to last."""
    replaced: list[Router] = []
    for layer in list(network.modules()):
        for name, module in layer.named_children():
            config = router_config(module)
            if config is not None:
                weight_ED = module.weight
                assert isinstance(weight_ED, nn.Parameter)
                ours = Router(
                    weight_ED, config, getattr(module, "e_score_correction_bias", None), len(replaced)
                )
                setattr(layer, name, ours)
                replaced.append(ours)
    return replaced


def router_config(module: nn.Module) -> RouterConfig | None:
    """Return how a router of transformers chooses; None if the module is not a router, or of a kind that we do not know."""
    kind = type(module).__name__
    if kind in _SOFTMAX or kind in _SOFTMAX_OF_CHOSEN:
        renormalise = kind in _SOFTMAX_OF_CHOSEN or bool(module.norm_topk_prob)
        return RouterConfig(_number(module, "num_experts"), _number(module, "top_k"), renormalise)
    if kind in _SIGMOID:
        return RouterConfig(
            experts=_number(module, "num_experts"),
            active=_number(module, "top_k"),
            renormalise=bool(module.norm_topk_prob),
            scores="sigmoid",
            scale=float(getattr(module, "routed_scaling_factor", 1.0)),
            expert_groups=_number(module, "num_group"),
            chosen_groups=_number(module, "topk_group"),
        )
    return None


def _number(module: nn.Module, name: str) -> int:
    value = getattr(module, name)
    assert isinstance(value, int)
    return value
