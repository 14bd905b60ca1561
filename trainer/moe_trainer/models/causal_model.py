"""What training, evaluation, distillation and serving need of a model: a decoder that predicts the next token.

    model.py                  the presets, written out; imports nothing heavy
    hugging_face/decoder.py   any decoder that transformers knows

What adds to a model (methods/) changes the modules inside it, so it stays what it was: a CausalModel.

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

    lengths_R: Tensor  #: Positions of each row that are filled, int64.
    max_length: int  #: Positions that a row has.


class Mixture(Protocol):
    """One mixture layer's router, as balancing sees and sets it, and as methods add to it."""

    router: RouterConfig
    capacity_factor: float | None  #: Slots that an in-layer expert takes in training; None: all.
    beside: nn.Module | None  #: Makes of a pass's x_ND and logits_NE the logits that count; None: they do.

    @property
    def rows_ED(self) -> nn.Parameter:
        """The router's rows, one an in-layer expert."""
        ...

    @property
    def bias_E(self) -> Tensor | None:
        """What takes part in the choice alone; None where the architecture has none."""
        ...


class CausalModel(nn.Module, ABC):
    """A decoder. Its parameters are what is trained; ``weights`` is what is stored."""

    recompute: bool = (
        False  #: Keep no activations inside of a layer for the backward pass: compute them again.
    )

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Token ids are below it."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The longest sequence, in tokens."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""

    @property
    @abstractmethod
    def never_ids(self) -> frozenset[int]:
        """Tokens that an answer never holds, such as the one that begins a document."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last: what is cut over processes, and computed again, piece by piece."""

    @property
    @abstractmethod
    def in_layer_experts(self) -> int | None:
        """In-layer experts of a mixture layer as the config has them; None if it does not say their number."""

    @abstractmethod
    def set_in_layer_experts(self, experts: int) -> None:
        """Say in the config that every mixture layer has another number of in-layer experts, which it now has."""

    @property
    @abstractmethod
    def mixtures(self) -> Sequence[Mixture]:
        """The routers, one a mixture layer, first to last; empty if the model is dense."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, cache: Cache | None = None, rows: Tensor | None = None) -> Tensor:
        """Return logits_BTV of the next token after each given token.

        With a cache, the tokens go on from what its rows hold (``rows``: one row a sequence; all rows in
        order if absent), and the rows' lengths grow by T. Raises ValueError beyond the context.
        """

    @abstractmethod
    def with_routing(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Return logits_BTV and the routing of each of ``mixtures``.

        ``positions_BT`` numbers each token within its document: where the number does not go on by one, a
        document begins, and its tokens see none before it. Without it a sequence is one document.
        """

    @abstractmethod
    def logits_in_pieces(self, ids_BT: Tensor, length: int) -> Iterator[Tensor]:
        """Yield logits_BPV of ``length`` positions at a time, first to last, and of those that remain.

        They are what ``forward`` returns, but never all in memory: a large vocabulary's take more than a model's
        layers do.
        """

    @abstractmethod
    def new_cache(self, rows: int, max_length: int) -> Cache:
        """Return an empty cache on the model's device."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return every tensor that makes the model, by name: its parameters and the routers' biases."""

    @abstractmethod
    def backend(self, tokens: int) -> Backend | None:
        """Return what computes the in-layer experts of so many tokens; None if there are none."""


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Return the names of a model's parameters, each by the ``id`` of the parameter."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def backend_for(gate_up_E2FD: Tensor, active: int, tokens: int) -> Backend:
    """Return the best backend for in-layer experts of these sizes, type and device."""
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
