"""Losses that compare the model in training with its frozen base, on the text of a step.

    specialization   mean over blocks of softplus((b - r + m) / tau)

b is the model's bits per byte on a block (one sequence of a batch, of which the learnt tokens count), r the
base's. The derivative by b is sigmoid((b - r + m) / tau) / tau: cross-entropy with a weight that is large on
blocks where the model is not yet better than its base, and falls to nothing where it is by far. It never
trains worseness elsewhere.

The base is computed beside the model, without gradients: about a third more work a step, and its weights once
more in memory. Nothing of it is cached: every epoch cuts its blocks at another offset, so that no block comes
twice. So there is nothing to resume either.

Shapes: B blocks, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.causal_model import CausalModel
from moe_trainer.data.batches import IGNORED
from moe_trainer.tokenizer import Tokenizer

#: tau, in bits per byte: how far from its base a block is when it stops to count.
SOFTNESS = 0.1

#: m, in bits per byte: by how much a block should be better than under the base.
MARGIN = 0.05


class BaseLosses:
    """A frozen base, and what its word is worth in the loss."""

    def __init__(self, base: CausalModel, tokenizer: Tokenizer, *, specialization: float) -> None:
        """Freeze the base; ``specialization`` weighs its loss."""
        self._base = base.eval().requires_grad_(False)
        self._sizes_V = torch.tensor(tokenizer.sizes())
        self._specialization = specialization

    def loss(self, ids_BT: Tensor, targets_BT: Tensor, logits_BTV: Tensor) -> Tensor:
        """Return the weighted losses of some blocks, a mean over them."""
        with torch.no_grad():
            base_BTV = self._base(ids_BT)
        sizes_B = self._bytes(targets_BT)
        bits_B = block_bits(logits_BTV, targets_BT, sizes_B)
        base_bits_B = block_bits(base_BTV, targets_BT, sizes_B)
        return self._specialization * specialization_loss(bits_B, base_bits_B)

    def _bytes(self, targets_BT: Tensor) -> Tensor:
        """Return the UTF-8 bytes of each block's learnt tokens; at least 1."""
        sizes_BT = self._sizes_V.to(targets_BT.device)[targets_BT.clamp(min=0)]
        return sizes_BT.masked_fill(targets_BT == IGNORED, 0).sum(dim=1).clamp(min=1)


def block_bits(logits_BTV: Tensor, targets_BT: Tensor, sizes_B: Tensor) -> Tensor:
    """Return the bits per byte of each block; 0 where nothing of it is learnt."""
    nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, ignore_index=IGNORED, reduction="none")
    return nats_BT.sum(dim=1) / (math.log(2) * sizes_B)


def specialization_loss(bits_B: Tensor, base_bits_B: Tensor) -> Tensor:
    """Return the mean of softplus((b - r + m) / tau) over blocks."""
    return F.softplus((bits_B - base_bits_B + MARGIN) / SOFTNESS).mean()
