"""Shapes, routings, and batches whose router chooses as a routing wants."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Routing = Literal["uniform", "zipf", "hot"]
#: train: forward and backward pass; decode: forward alone; memory: what is kept between the passes, untimed.
Kind = Literal["train", "decode", "memory"]
ROUTINGS: tuple[Routing, ...] = ("uniform", "zipf", "hot")

#: Batches that take turns, so that no layer finds its input in a cache.
BATCHES = 3

#: Of all slots, what the one in-layer expert of ``hot`` gets; at most 1 / K: a token chooses it once.
HOT_SHARE = 0.3


@dataclass(frozen=True)
class Shape:
    """The sizes of a layer and of its batch."""

    name: str
    tokens: int
    hidden: int
    inner: int
    experts: int
    active: int

    @property
    def slots(self) -> int:
        """Choices of all tokens."""
        return self.tokens * self.active

    @property
    def forward_flop(self) -> int:
        """Operations of the forward pass, the router's aside; the backward pass has twice as many."""
        return 6 * self.slots * self.hidden * self.inner

    def kept_bytes(self, width: int) -> int:
        """Return what must be kept between the passes: x and the pre-activation, of ``width`` bytes a number."""
        return width * (self.tokens * self.hidden + self.slots * 2 * self.inner)


@dataclass(frozen=True)
class Case:
    """What is measured at once."""

    kind: Kind
    shape: Shape
    routing: Routing = "uniform"

    @property
    def name(self) -> str:
        """For example ``train qwen3-30b-a3b zipf``."""
        return f"{self.kind} {self.shape.name} {self.routing}"

    @property
    def backward(self) -> bool:
        """Whether there is a backward pass."""
        return self.kind != "decode"

    def dtype(self, device: str) -> torch.dtype:
        """Return what is computed in: fp32 where a CPU's time is measured, bf16 else."""
        return torch.float32 if device == "cpu" and self.kind != "memory" else torch.bfloat16


#: Hopper's shapes: the five of SonicMoE's published figures, and a layer of Qwen3-30B-A3B.
TRAINING = (
    Shape("7b-n256", 24576, 1536, 256, 128, 8),
    Shape("30b-n256", 32768, 4096, 256, 256, 16),
    Shape("30b-n512", 32768, 4096, 512, 128, 8),
    Shape("120b-n1024", 32768, 4096, 1024, 128, 8),
    Shape("120b-n2048", 32768, 4096, 2048, 64, 4),
    Shape("qwen3-30b-a3b", 16384, 2048, 768, 128, 8),
)
DECODING = tuple(Shape(f"qwen3-30b-a3b-t{tokens}", tokens, 2048, 768, 128, 8) for tokens in (1, 16, 64, 256))
#: What laptops and continuous integration train.
SMALL = (
    Shape("d128-n256-e8", 2048, 128, 256, 8, 2),
    Shape("d256-n256-e16", 2048, 256, 256, 16, 2),
    Shape("d128-n64-e32", 2048, 128, 64, 32, 4),
)
SMALL_DECODING = tuple(Shape(f"d128-n256-e8-t{tokens}", tokens, 128, 256, 8, 2) for tokens in (1, 16, 64))
#: A large layer with few tokens: what is kept grows with the tokens, so its ratio to the formula shows here.
KEEPING = Shape("7b-n256-t1024", 1024, 1536, 256, 128, 8)
#: To see that the benchmark itself works.
TINY = Case("train", Shape("tiny", 48, 16, 8, 4, 2))


def cases(device: str, quick: bool) -> list[Case]:
    """Return the cases of a kind of device, what matters most first; quick: skewed routings once only."""
    training, decoding = (TRAINING, DECODING) if device == "cuda" else (SMALL, SMALL_DECODING)
    skewed: Iterable[Shape] = training[-1:] if quick else training
    return [
        *(Case("train", shape) for shape in training),
        *(Case("decode", shape) for shape in decoding),
        *(Case("train", shape, routing) for routing in ROUTINGS[1:] for shape in skewed),
        *([Case("memory", KEEPING)] if device == "cpu" else []),
    ]


@dataclass(frozen=True)
class Weights:
    """A layer's weights, in Hugging Face's layout: gate above up."""

    router_ED: torch.nn.Parameter
    gate_up_E2FD: torch.nn.Parameter
    down_EDF: torch.nn.Parameter


@dataclass(frozen=True)
class Batch:
    """A layer's input, the gradient of its output, and what its router will choose."""

    x_ND: Tensor
    dy_ND: Tensor
    experts_NK: Tensor

    def first(self, tokens: int) -> "Batch":
        """Return the batch's first tokens."""
        return Batch(self.x_ND[:tokens], self.dy_ND[:tokens], self.experts_NK[:tokens])


def draw_weights(shape: Shape, dtype: torch.dtype, generator: torch.Generator) -> Weights:
    """Draw weights that keep the variance of what goes through them."""

    def normal(*sizes: int) -> torch.nn.Parameter:
        drawn = torch.randn(*sizes, generator=generator, device=generator.device) / sizes[-1] ** 0.5
        return torch.nn.Parameter(drawn.to(dtype))

    return Weights(
        normal(shape.experts, shape.hidden),
        normal(shape.experts, 2 * shape.inner, shape.hidden),
        normal(shape.experts, shape.hidden, shape.inner),
    )


def draw_batch(case: Case, router_ED: Tensor, generator: torch.Generator) -> Batch:
    """Draw a batch for which the router makes the choice of the case's routing, whatever its precision.

    The logits are made first, with a gap of 1 between what is chosen and what is not, so that rounding
    changes no choice and errors are those of arithmetic; the input is a random one, moved to the nearest
    that has these logits. Needs E <= D.
    """
    shape, device = case.shape, generator.device
    experts_NK = draw_choice(shape, case.routing, generator)
    logits_NE = torch.rand(shape.tokens, shape.experts, generator=generator, device=device)
    logits_NE.scatter_add_(1, experts_NK, torch.full(experts_NK.shape, 2.0, device=device))
    router_ED = router_ED.detach().float()
    x_ND = torch.randn(shape.tokens, shape.hidden, generator=generator, device=device)
    x_ND += (logits_NE - x_ND @ router_ED.T) @ torch.linalg.pinv(router_ED.double()).float().T
    dy_ND = torch.randn(shape.tokens, shape.hidden, generator=generator, device=device)
    return Batch(x_ND, dy_ND, experts_NK)


def draw_choice(shape: Shape, routing: Routing, generator: torch.Generator) -> Tensor:
    """Draw K in-layer experts for each token.

    uniform  all sets of K are equally likely
    zipf     drawn one after the other without replacement, the r-th most popular with weight 1 / r
    hot      one gets 30 % of the slots, or the choice of every token where K > 3; the others share the rest
    """
    device = generator.device
    uniform_NE = torch.rand(shape.tokens, shape.experts, generator=generator, device=device)
    scores_NE = -torch.log(
        -torch.log(uniform_NE.clamp(1e-7, 1 - 1e-7))
    )  # Gumbel: top K = without replacement
    popular_E = torch.randperm(shape.experts, generator=generator, device=device)
    if routing == "zipf":
        scores_NE[:, popular_E] -= torch.arange(1, shape.experts + 1, device=device).log()
    elif routing == "hot":
        chosen_N = torch.rand(shape.tokens, generator=generator, device=device) < HOT_SHARE * shape.active
        scores_NE[:, popular_E[0]] = torch.where(chosen_N, torch.inf, -torch.inf)
    return scores_NE.topk(shape.active, dim=1).indices
