"""A decoder of transformers as a CausalModel.

Its parameters are in single precision, whatever is on disk. On an accelerator products are computed in bfloat16
(autocast) if the checkpoint is stored in 16 bits; on a CPU in single precision.

Shapes: B sequences, T tokens, P tokens of a piece, S positions, V vocabulary.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from moe_formats.context_length import LONGEST, longest
from moe_formats.failure import JobError
from moe_trainer.hugging_face.cache import Appending, RowCache
from moe_trainer.hugging_face.experts import IMPLEMENTATION, refusal
from moe_trainer.hugging_face.routers import replace_routers
from moe_trainer.models.causal_model import Cache, CausalModel, Mixture, backend_for
from moe_trainer.models.in_layer import holds_in_layer_experts
from moe_trainer.models.preset_config import IN_LAYER_EXPERTS
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.routing import Routing

#: The file with the network's architecture and sizes.
CONFIG = "config.json"


class Decoder(CausalModel):
    """A network of transformers, and the parts of its checkpoint that are written again unchanged.

    Attributes:
        network: the network; our layer computes its in-layer experts where it can.
        files: the small files of the checkpoint (config and generation config), by name.
        dtypes: the type in which each tensor was stored, by its name on disk.

    """

    def __init__(
        self, network: PreTrainedModel, files: Mapping[str, bytes], dtypes: Mapping[str, torch.dtype]
    ) -> None:
        super().__init__()
        self.network = network
        self.files = files
        self.dtypes = dtypes
        if experts := self._experts:
            ours = not any(map(refusal, experts))
            network.set_experts_implementation(IMPLEMENTATION if ours else "grouped_mm")
        self._routers = replace_routers(network)
        self._config: Any = network.config.get_text_config()
        self._context = _context(self._config)
        self.tokens = (
            self.vocab_size
        )  #: The number of ids that the tokenizer has; further ids only fill up the embedding.
        self.document_end: int | None = None  #: The token by which the tokenizer ends a document.

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return int(self._config.vocab_size)

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""
        return self._context

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer, according to the generation config, the config and the tokenizer."""
        configured = getattr(self._config, "eos_token_id", None)
        return self._ids(self._generation.eos_token_id, configured, self.document_end)

    @property
    def never_ids(self) -> frozenset[int]:
        """The tokens that an answer never contains: those that begin a document or fill a batch, and ids without a token."""
        special = self._ids(self._generation.bos_token_id, self._generation.pad_token_id)
        return special | frozenset(range(self.tokens, self.vocab_size))

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last: the largest list of modules in the decoder, or one of as many as there are layers."""
        decoder, number = self.network.get_decoder(), self._config.num_hidden_layers
        lists = [module for module in decoder.children() if isinstance(module, nn.ModuleList)] or [
            module
            for module in decoder.modules()
            if isinstance(module, nn.ModuleList) and len(module) == number
        ]
        if not lists:
            raise JobError(
                "ModelUnsupported",
                f"{type(self.network).__name__} has no list of its {number} layers, so they can neither be cut over "
                "processes nor get updates by LoRA: train it in one process by method Full.",
            )
        return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))

    @property
    def in_layer_experts(self) -> int | None:
        """The number of in-layer experts of a mixture layer, if the config says it."""
        found = [getattr(self._config, name, None) for name in IN_LAYER_EXPERTS]
        return next((number for number in found if isinstance(number, int)), None)

    def set_in_layer_experts(self, experts: int) -> None:
        """Write a new number of in-layer experts per mixture layer into the config, also into the file to be written."""
        known = [name for name in IN_LAYER_EXPERTS if hasattr(self._config, name)]
        for name in known:
            setattr(self._config, name, experts)
        if CONFIG in self.files:
            written = json.loads(self.files[CONFIG])
            sizes = written.get("text_config", written)
            sizes |= dict.fromkeys([name for name in IN_LAYER_EXPERTS if name in sizes] or known[:1], experts)
            self.files = {**self.files, CONFIG: (json.dumps(written, indent=2) + "\n").encode()}

    @property
    def mixtures(self) -> Sequence[Mixture]:
        """The routers of the kinds that we know."""
        return self._routers

    def forward(self, ids_BT: Tensor, cache: Cache | None = None, rows: Tensor | None = None) -> Tensor:
        """Return logits of the next token after each given token."""
        if cache is None:
            return self.with_routing(ids_BT)[0]
        assert isinstance(cache, RowCache)
        rows_B = torch.arange(ids_BT.shape[0]) if rows is None else rows
        at_BT = cache.lengths_R[rows_B, None] + torch.arange(ids_BT.shape[1])
        end = int(at_BT.max()) + 1
        self._check_context(end, cache.max_length)
        logits_BTV = self._logits(
            ids_BT,
            position_ids=at_BT,
            attention_mask=self._masks(at_BT[:, :, None] - torch.arange(end)),
            past_key_values=Appending(cache, rows_B, at_BT),
            use_cache=True,
        )
        cache.lengths_R[rows_B] += ids_BT.shape[1]
        return logits_BTV

    def with_routing(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Return logits, and the routing of each mixture layer whose router we know."""
        self._check_context(ids_BT.shape[1], self.context)
        self._recompute()
        for router in self._routers:
            router.record()
        logits_BTV = self._logits(
            ids_BT,
            position_ids=positions_BT,
            attention_mask=None if positions_BT is None else self._apart(positions_BT),
            use_cache=False,
        )
        return logits_BTV, [router.recorded() for router in self._routers]

    def logits_in_pieces(self, ids_BT: Tensor, length: int) -> Iterator[Tensor]:
        """Yield logits of ``length`` positions at a time."""
        self._check_context(ids_BT.shape[1], self.context)
        with computed_once(self.network.get_decoder()):
            for at_P in torch.split(torch.arange(ids_BT.shape[1]), length):
                yield self._logits(ids_BT, use_cache=False, logits_to_keep=at_P)

    def new_cache(self, rows: int, max_length: int) -> RowCache:
        """Return an empty cache."""
        return RowCache(rows, max_length)

    def weights(self) -> dict[str, Tensor]:
        """Return all tensors that are stored: parameters, and buffers such as a router's selection bias."""
        parameters = dict(self.named_parameters())
        twice = dict(self.named_parameters(remove_duplicate=False))
        kept = {name: tensor for name, tensor in self.state_dict(keep_vars=True).items() if name not in twice}
        return parameters | kept

    def backend(self, tokens: int) -> Backend | None:
        """Return the backend that computes the in-layer experts of ``tokens`` tokens; None if our layer does not."""
        if not self._routers or self.network.config._experts_implementation != IMPLEMENTATION:
            return None
        gate_up_E2FD = self._experts[0].gate_up_proj
        assert isinstance(gate_up_E2FD, Tensor)
        return backend_for(gate_up_E2FD, self._routers[0].router.active, tokens)

    @property
    def _experts(self) -> list[nn.Module]:
        return [module for module in self.network.modules() if holds_in_layer_experts(module)]

    @property
    def _generation(self) -> Any:
        return self.network.generation_config

    def _ids(self, *fields: Any) -> frozenset[int]:
        """Return the ids that fields of configs name. Some name others, such as -1 for none, which no answer contains."""
        named = [i for field in fields for i in (field if isinstance(field, list) else [field])]
        return frozenset(i for i in named if isinstance(i, int) and 0 <= i < self.vocab_size)

    def _logits(self, ids_BT: Tensor, **arguments: Any) -> Tensor:
        for router in self._routers:
            router.sequences = ids_BT.shape[0]
        device = ids_BT.device.type
        half = any(dtype in (torch.bfloat16, torch.float16) for dtype in self.dtypes.values())
        with torch.autocast(device, torch.bfloat16, enabled=half and device != "cpu"):
            logits_BTV: Tensor = self.network(input_ids=ids_BT, **arguments).logits
        return logits_BTV.float()

    def _recompute(self) -> None:
        """Apply the attribute ``recompute``: transformers then recomputes its layers, one by one."""
        if self.recompute != self.network.is_activation_checkpointing:
            if self.recompute:
                self.network.activation_checkpointing_enable({"use_reentrant": False})
            else:
                self.network.activation_checkpointing_disable()

    def _apart(self, positions_BT: Tensor) -> Tensor | dict[str, Tensor] | None:
        """Return the masks of documents that do not see each other; None if each sequence is one document.

        Not every architecture of transformers makes them itself where positions begin again.
        """
        begins_BT = positions_BT.diff(prepend=positions_BT[:, :1] - 1) != 1
        if not begins_BT.any():
            return None
        document_BT = begins_BT.cumsum(dim=1)
        place_T = torch.arange(positions_BT.shape[1], dtype=torch.int32)
        back_1TT = (place_T[:, None] - place_T)[None]
        return self._masks(back_1TT, document_BT[:, :, None] == document_BT[:, None])

    def _masks(self, back_BTS: Tensor, same_BTS: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return which positions each token sees: one mask, or one per kind of layer.

        ``back_BTS`` is how many tokens before each token a position is, ``same_BTS`` whether it is in the same document.
        """
        back_B1TS = back_BTS[:, None]
        seen_B1TS = back_B1TS >= 0
        masks = {"full_attention": seen_B1TS if same_BTS is None else seen_B1TS & same_BTS[:, None]}
        window = getattr(self._config, "sliding_window", None)
        if window is not None:
            masks["sliding_attention"] = masks["full_attention"] & (back_B1TS < window)
        kinds = set(getattr(self._config, "layer_types", None) or [next(reversed(masks))])
        if self.network.config._attn_implementation == "eager":  # which adds a mask to the scores
            masks = {kind: _added(seen_B1TS) for kind, seen_B1TS in masks.items()}
        if len(kinds) == 1:
            return masks[kinds.pop()]
        return masks

    def _check_context(self, length: int, limit: int) -> None:
        if length > min(limit, self.context):
            raise ValueError(f"{length} tokens do not fit into a context of {limit}")


def _context(config: PreTrainedConfig) -> int:
    found = longest(config.to_dict())
    if found is None:
        raise JobError(
            "ModelUnsupported",
            f"{CONFIG} names no longest sequence; it needs a positive number of tokens in one of "
            f"{', '.join(LONGEST)}.",
        )
    return found[1]


def _added(seen_B1TS: Tensor) -> Tensor:
    """Return what is added to the scores of attention: 0 where a position is seen."""
    return torch.zeros(seen_B1TS.shape).masked_fill(~seen_B1TS, torch.finfo(torch.float32).min)


@contextmanager
def computed_once(module: nn.Module) -> Iterator[None]:
    """Within the block, a module returns its first result again whenever it is called, whatever its arguments.

    What an architecture does after its layers (the head, soft caps, scales) is only in the network's own ``forward``.
    So that is run for each piece of the positions, with ``logits_to_keep``, while the layers run only once.
    """
    compute, answers = module.forward, list[Any]()

    def answer(*arguments: Any, **named: Any) -> Any:
        if not answers:
            answers.append(compute(*arguments, **named))
        return answers[0]

    module.forward = answer
    try:
        yield
    finally:
        del module.forward  # restores the method of its class
