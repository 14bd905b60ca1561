"""What training, evaluation and serving need of a model: a decoder that predicts the next token.

    preset_model.py           the model of the presets; imports nothing heavy
    hugging_face/decoder.py   any decoder that transformers knows

Methods that add something to a model (methods/) change modules inside it; it remains a CausalModel.

Shapes: B sequences, T tokens, P tokens of a piece, R cache rows, V vocabulary, E in-layer experts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.kernels import Case
from moe_trainer.moe.routing import RouterConfig, Routing


class Cache(Protocol):
    """Keys and values of sequences being decoded, in R independent rows.

    A row is freed by setting its length to 0.
    """

    lengths_R: Tensor  #: The number of filled positions of each row, int64.
    max_length: int  #: The number of positions in a row.


class Mixture(Protocol):
    """The router of one mixture layer, as balancing reads and sets it, and as methods add to it."""

    router: RouterConfig
    capacity_factor: float | None  #: Limits the slots per in-layer expert in training; None: no limit.
    beside: nn.Module | None  #: Computes the final logits from x_ND and logits_NE; None: logits_NE are final.

    @property
    def rows_ED(self) -> nn.Parameter:
        """The router's weight, one row per in-layer expert."""
        ...

    @property
    def bias_E(self) -> Tensor | None:
        """The selection bias, which affects only the choice; None if the architecture has none."""
        ...


class CausalModel(nn.Module, ABC):
    """A decoder. Its parameters are trained; ``weights`` returns what is stored."""

    recompute: bool = (
        False  #: Keep no activations within layers for the backward pass, but compute them again.
    )

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """All token ids are below this number."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The longest sequence, in tokens."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    @property
    @abstractmethod
    def never_ids(self) -> frozenset[int]:
        """The tokens that an answer never contains, such as the one that begins a document."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last: the units that are cut over processes and recomputed."""

    @property
    @abstractmethod
    def in_layer_experts(self) -> int | None:
        """The number of in-layer experts in a mixture layer according to the config; None if it does not say."""

    @abstractmethod
    def set_in_layer_experts(self, experts: int) -> None:
        """Write the new number of in-layer experts per mixture layer into the config, after the layers were changed."""

    @property
    @abstractmethod
    def mixtures(self) -> Sequence[Mixture]:
        """The routers, one per mixture layer, first to last; empty if the model is dense."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, cache: Cache | None = None, rows: Tensor | None = None) -> Tensor:
        """Return logits_BTV of the next token after each given token.

        With a cache, the tokens continue what its rows hold, and the rows' lengths grow by T. ``rows`` gives the row
        of each sequence; without it, they are all rows in order. Raises ValueError beyond the context.
        """

    @abstractmethod
    def with_routing(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Return logits_BTV and the routing of each of ``mixtures``.

        ``positions_BT`` numbers the tokens within each document. Where the number does not increase by one, a new
        document begins, whose tokens do not see earlier ones. Without it a sequence is one document.
        """

    @abstractmethod
    def logits_in_pieces(self, ids_BT: Tensor, length: int) -> Iterator[Tensor]:
        """Yield logits_BPV for ``length`` positions at a time, first to last; the last piece may be shorter.

        They are the logits that ``forward`` returns, but never all in memory: those of a large vocabulary take more
        memory than the model's layers.
        """

    @abstractmethod
    def new_cache(self, rows: int, max_length: int) -> Cache:
        """Return an empty cache on the model's device."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return all tensors that make up the model, by name: its parameters and the routers' biases."""

    @abstractmethod
    def backend(self, tokens: int) -> Backend | None:
        """Return the backend that computes the in-layer experts of ``tokens`` tokens; None if there are none."""


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Return the name of each of a model's parameters, by the ``id`` of the parameter."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def backend_for(gate_up_E2FD: Tensor, active: int, tokens: int) -> Backend:
    """Return the best backend for in-layer experts of this size, type and device."""
    experts, twice, hidden = gate_up_E2FD.shape
    return backends.choose(
        Case(
            device=gate_up_E2FD.device.type,
            dtype=gate_up_E2FD.dtype,
            tokens=tokens,
            hidden=hidden,
            inner=twice // 2,
            experts=experts,
            active=active,
            capability=torch.cuda.get_device_capability(gate_up_E2FD.device)
            if gate_up_E2FD.is_cuda
            else (0, 0),
        )
    )
