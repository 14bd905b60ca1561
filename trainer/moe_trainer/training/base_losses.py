"""Losses that compare the model in training with its frozen base, on the text of a step.

    specialization   mean over blocks of softplus((b - r + m) / tau)
    regularization   mean over the tokens of replayed blocks of KL(base || model)

b is the model's bits per byte on a block (one sequence of a batch, of which the learnt tokens count), r the
base's. The derivative by b is sigmoid((b - r + m) / tau) / tau: cross-entropy with a weight that is large on
blocks where the model is not yet better than its base, and falls to nothing where it is by far. It never
trains worseness elsewhere. The divergence holds the model to all that the base says on text that the base was
trained on (streaming/replay.py), where replay alone would hold it to the text.

The base is computed beside the model, without gradients: about a third more work a step, and its weights once
more in memory. Nothing of it is cached: every epoch cuts its blocks at another offset, so that no block comes
twice. So there is nothing to resume either.

Shapes: B blocks, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_formats.training_spec import TrainingSpec
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.streaming.batches import IGNORED, MicroBatch
from moe_trainer.text.tokenizer import Tokenizer

#: tau, in bits per byte: how far from its base a block is when it stops to count.
SOFTNESS = 0.1

#: m, in bits per byte: by how much a block should be better than under the base.
MARGIN = 0.05


class BaseLosses:
    """A frozen base, and what its word is worth in the loss."""

    def __init__(self, base: CausalModel, tokenizer: Tokenizer, training: TrainingSpec) -> None:
        """Freeze the base; the spec has the losses' weights."""
        self._base = base.eval().requires_grad_(False)
        self._sizes_V = torch.tensor(tokenizer.sizes())
        self._specialization = training.specialization_loss_weight
        self._regularization = training.regularization
        self._replay_share = training.replay_share

    def loss(self, part: MicroBatch, logits_BTV: Tensor) -> Tensor:
        """Return the weighted losses of some blocks, given the model's logits; over a step's blocks it is a mean."""
        targets_BT = part.targets_BT
        with torch.no_grad():
            base_BTV, _ = self._base.with_routing(part.ids_BT, part.positions_BT)
        loss = logits_BTV.new_zeros(())
        if self._specialization:
            sizes_B = self._bytes(targets_BT)
            bits_B = block_bits(logits_BTV, targets_BT, sizes_B)
            base_bits_B = block_bits(base_BTV, targets_BT, sizes_B)
            loss = loss + self._specialization * specialization_loss(bits_B, base_bits_B)
        if self._regularization:
            # Of all blocks that share is replayed: so it is a mean over those, whatever this part of a step holds.
            nats_B = divergence(base_BTV, logits_BTV) * part.replayed_B.to(logits_BTV.device)
            loss = loss + self._regularization * nats_B.mean() / self._replay_share
        return loss

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


def divergence(base_BTV: Tensor, logits_BTV: Tensor) -> Tensor:
    """Return the mean of KL(base || model) over the tokens of each block, in nats."""
    nats_BTV = F.kl_div(
        logits_BTV.log_softmax(-1), base_BTV.log_softmax(-1), log_target=True, reduction="none"
    )
    return nats_BTV.sum(-1).mean(-1)
