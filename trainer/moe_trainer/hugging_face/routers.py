"""Routers of transformers' models replaced by ours: the same choice, and a Routing that can be balanced.

Here a router is a module with a weight of E x D that returns (logits, weights, choice). Ours takes over its
weight under its name, so that nothing changes on disk. Those that choose in another way are left alone:
their layers are trained, but their load is neither measured nor balanced.

Shapes: N tokens, D hidden, E in-layer experts, K active per token.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.moe.capacity import drop_beyond_capacity
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig, Routing

#: softmax; the config says whether the weights of a token are made to sum to 1.
_SOFTMAX = {
    "FlexOlmoTopKRouter",
    "OlmoeTopKRouter",
    "Qwen2MoeTopKRouter",
    "Qwen3MoeTopKRouter",
    "Qwen3NextTopKRouter",
}
#: softmax; the weights of a token sum to 1.
_SOFTMAX_OF_CHOSEN = {"GraniteMoeTopKRouter", "MiniMaxTopKRouter", "MixtralTopKRouter"}
#: sigmoid, with a bias of the choice and groups of in-layer experts.
_SIGMOID = {"DeepseekV3TopkRouter", "Glm4MoeTopkRouter"}


class Router(nn.Module):
    """A router that remembers, while a pass is recorded, what it did."""

    def __init__(
        self, weight_ED: nn.Parameter, router: RouterConfig, bias_E: Tensor | None, layer: int
    ) -> None:
        """Make router number ``layer`` of a network, which errors then name."""
        super().__init__()
        self.layer = layer
        self.weight = weight_ED
        self.router = router
        self.capacity_factor: float | None = None
        if bias_E is not None:
            self.register_buffer("e_score_correction_bias", bias_E)
        self.beside: nn.Module | None = None  #: Makes of (x_ND, logits_NE) the logits that count.
        self.sequences = 1  #: Of which the tokens of a pass are, one after the other.
        self._recording = False
        self._routing: Routing | None = None

    @property
    def bias_E(self) -> Tensor | None:
        """The bias of the choice, if the architecture has one."""
        bias_E = getattr(self, "e_score_correction_bias", None)
        assert bias_E is None or isinstance(bias_E, Tensor)
        return bias_E

    @property
    def rows_ED(self) -> nn.Parameter:
        """The router's rows, one an in-layer expert."""
        return self.weight

    def record(self) -> None:
        """Record the next pass."""
        self._recording, self._routing = True, None

    def recorded(self) -> Routing:
        """Return what the router did, and record no longer: activations may yet be computed again."""
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
    """Put our routers in the places of those that we know, and return them, first to last."""
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
    """Return how a router of transformers chooses; None if the module is none, or one of another kind."""
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
