"""The preset model: a decoder-only mixture-of-experts transformer in Qwen3-MoE's layout.

    token embedding
    N x  [ RMSNorm -> attention (rotary, grouped queries, normalised q and k) -> +
           RMSNorm -> MoE layer (moe/)                                        -> + ]
    RMSNorm -> logits (weights tied to the embedding where the config says so)

Its methods are described in causal_model.py:

    model(ids_BT) -> logits_BTV                       whole sequences, causal
    model(ids_BT, cache=cache, rows=rows_B)           appends to the cache's rows, at each row's own length
    model.with_routing(ids_BT) -> (logits_BTV, [Routing per layer])     for training
    model.logits_in_pieces(ids_BT, length)            logits_BPV, one after the other, for evaluation

Shapes: B sequences, T tokens, P tokens of a piece, N = B * T, D hidden, H query heads, G key/value heads, C head width,
R cache rows, S positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moe_trainer.models.attention import Append, Attention, KVCache, rotary_table, within_documents
from moe_trainer.models.causal_model import Cache, CausalModel, Mixture, backend_for
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.layer import InLayerExperts, LayerConfig, MoELayer
from moe_trainer.moe.routing import RouterConfig, Routing


class Block(nn.Module):
    """One layer of the transformer."""

    def __init__(self, config: ModelConfig, layer: int, backend: Backend | None) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MoELayer(layer_config(config), backend, layer)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_B1TS: Tensor | None,
        append: Append | None,
    ) -> tuple[Tensor, Routing]:
        """Return the block's output, and its routing."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, mask_B1TS, append)
        y_ND, routing = self.mlp(self.post_attention_layernorm(x_BTD).flatten(0, 1), groups=x_BTD.shape[0])
        return x_BTD + y_ND.view_as(x_BTD), routing


class Model(CausalModel):
    """The whole transformer."""

    def __init__(self, config: ModelConfig, backend: Backend | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i, backend) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        cos_SC, sin_SC = rotary_table(config)
        self.register_buffer("cos_SC", cos_SC, persistent=False)
        self.register_buffer("sin_SC", sin_SC, persistent=False)
        self.cos_SC: Tensor
        self.sin_SC: Tensor

    @classmethod
    def outline(cls, config: ModelConfig) -> "Model":
        """Return a model whose weights take no memory yet (parallel/filling.py); everything else is complete."""
        with torch.device("meta"):
            model = cls(config)
        model.cos_SC, model.sin_SC = rotary_table(config)
        return model

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.config.vocab_size

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""
        return self.config.max_position_embeddings

    @property
    def end_ids(self) -> frozenset[int]:
        """The token that ends a document or an answer, if there is one."""
        return _ids(self.config.eos_token_id)

    @property
    def never_ids(self) -> frozenset[int]:
        """The tokens that begin a document and that fill a batch."""
        return _ids(self.config.bos_token_id, self.config.pad_token_id)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last."""
        return self.layers

    @property
    def in_layer_experts(self) -> int:
        """In-layer experts of a layer."""
        return self.config.num_experts

    def set_in_layer_experts(self, experts: int) -> None:
        """Write a new number of in-layer experts per layer into the config."""
        self.config = self.config.model_copy(update={"num_experts": experts})

    @property
    def mixtures(self) -> Sequence[Mixture]:
        """The mixture layers: all of them."""
        return [module for module in self.modules() if isinstance(module, MoELayer)]

    def forward(self, ids_BT: Tensor, cache: Cache | None = None, rows: Tensor | None = None) -> Tensor:
        """Return logits of the next token after each given token."""
        if cache is None:
            return self.with_routing(ids_BT)[0]
        assert isinstance(cache, KVCache)
        rows_B = torch.arange(ids_BT.shape[0]) if rows is None else rows
        at_BT = cache.lengths_R[rows_B, None] + torch.arange(ids_BT.shape[1])
        end = int(at_BT.max()) + 1
        self._check_context(end, cache.max_length)
        mask_B1TS = torch.arange(end)[None, None, None] <= at_BT[:, None, :, None]
        x_BTD, _ = self._run(ids_BT, self._rotary(at_BT), mask_B1TS, partial(cache.append, rows_B, at_BT))
        cache.lengths_R[rows_B] += ids_BT.shape[1]
        return self._logits(x_BTD)

    def with_routing(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Return logits, and each layer's routing."""
        self._check_context(ids_BT.shape[1], self.context)
        if positions_BT is None:
            x_BTD, routings = self._whole(ids_BT)
        else:
            mask_B1TS = within_documents(positions_BT)
            x_BTD, routings = self._run(ids_BT, self._rotary(positions_BT), mask_B1TS, None)
        return self._logits(x_BTD), routings

    def logits_in_pieces(self, ids_BT: Tensor, length: int) -> Iterator[Tensor]:
        """Yield logits of ``length`` positions at a time."""
        self._check_context(ids_BT.shape[1], self.context)
        x_BTD, _ = self._whole(ids_BT)
        for x_BPD in torch.split(x_BTD, length, dim=1):
            yield self._logits(x_BPD)

    def new_cache(self, rows: int, max_length: int) -> KVCache:
        """Return an empty cache."""
        return KVCache(self.config, rows, max_length)

    def weights(self) -> dict[str, Tensor]:
        """Return all tensors that make up the model, by name: its parameters and the routers' biases."""
        biases = {name: buffer for name, buffer in self.named_buffers() if name.endswith(".bias_E")}
        return dict(self.named_parameters()) | biases

    def backend(self, tokens: int) -> Backend:
        """Return the backend that was given, or else the best one for ``tokens`` tokens."""
        experts = next(module for module in self.modules() if isinstance(module, InLayerExperts))
        return experts.backend or backend_for(experts.gate_up_E2FD, self.config.num_experts_per_tok, tokens)

    def _whole(self, ids_BT: Tensor) -> tuple[Tensor, list[Routing]]:
        length = ids_BT.shape[1]
        return self._run(ids_BT, (self.cos_SC[:length], self.sin_SC[:length]), None, None)

    def _run(
        self,
        ids_BT: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_B1TS: Tensor | None,
        append: Append | None,
    ) -> tuple[Tensor, list[Routing]]:
        x_BTD = self.embed_tokens(ids_BT)
        routings = []
        for block in self.layers:
            if self.recompute and self.training:
                x_BTD, routing = checkpoint(block, x_BTD, rotary, mask_B1TS, append, use_reentrant=False)
            else:
                x_BTD, routing = block(x_BTD, rotary, mask_B1TS, append)
            routings.append(routing)
        return x_BTD, routings

    def _logits(self, x_BTD: Tensor) -> Tensor:
        logits_BTV: Tensor = self.lm_head(self.norm(x_BTD))
        return logits_BTV

    def _rotary(self, at_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.cos_SC[at_BT].unsqueeze(1), self.sin_SC[at_BT].unsqueeze(1)

    def _check_context(self, length: int, limit: int) -> None:
        if length > min(limit, self.config.max_position_embeddings):
            raise ValueError(f"{length} tokens do not fit into a context of {limit}")


def layer_config(config: ModelConfig) -> LayerConfig:
    """Return the sizes of an architecture's mixture layers, and how their routers choose."""
    return LayerConfig(
        hidden=config.hidden_size,
        inner=config.moe_intermediate_size,
        router=RouterConfig(
            experts=config.num_experts,
            active=config.num_experts_per_tok,
            renormalise=config.norm_topk_prob,
            scores=config.scores,
            scale=config.routed_scaling_factor,
            expert_groups=config.n_group,
            chosen_groups=config.topk_group,
        ),
        shared=config.n_shared_experts,
        bias=config.has_router_bias,
    )


def initialise(model: Model, seed: int) -> None:
    """Set all parameters from a seed: normally distributed with the config's standard deviation; norms to 1.

    Weights that write into the residual stream start at zero, so that a new model predicts only from the last token,
    and each layer adds to that as it learns.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_EDF", "down_proj.weight")):
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape, device="cpu")  # so that it is the same on every device
                parameter.copy_(drawn.normal_(0.0, model.config.initializer_range, generator=generator))


def _ids(*ids: int | None) -> frozenset[int]:
    return frozenset(i for i in ids if i is not None)
