"""Losses that compare the model in training with its frozen base, on the text of a step.

    specialization   mean over blocks of softplus((b - r + m) / tau)
    regularization   mean over the tokens of replayed blocks of KL(base || model)

b is the model's bits per byte on a block (one sequence of a batch; only its learnt tokens count), and r the base's.
The derivative by b is sigmoid((b - r + m) / tau) / tau. So this is the cross-entropy with a weight that is large on
blocks where the model is not yet better than its base, and vanishes where it is far better. It never rewards being
worse. The divergence keeps the model close to all predictions of the base on text that the base was trained on
(streaming/replay.py), where replay alone would only keep it close to the text.

The base is computed in addition to the model, without gradients: about a third more work per step, and its weights in memory
as well. Its results are not cached, since every epoch cuts its blocks at another offset and no block comes twice. So
there is nothing to save for resuming either.

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

#: tau, in bits per byte: how far beyond the margin a block must be before it stops counting.
SOFTNESS = 0.1

#: m, in bits per byte: by how much the model should be better than its base on a block.
MARGIN = 0.05


class BaseLosses:
    """The losses that compare with a frozen base."""

    def __init__(self, base: CausalModel, tokenizer: Tokenizer, training: TrainingSpec) -> None:
        """Freeze the base; the losses' weights are in the spec."""
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
            # Replayed blocks are that share of all blocks, so over a step this is the mean over the replayed ones.
            nats_B = divergence(base_BTV, logits_BTV) * part.replayed_B.to(logits_BTV.device)
            loss = loss + self._regularization * nats_B.mean() / self._replay_share
        return loss

    def _bytes(self, targets_BT: Tensor) -> Tensor:
        """Return the UTF-8 bytes of each block's learnt tokens; at least 1."""
        sizes_BT = self._sizes_V.to(targets_BT.device)[targets_BT.clamp(min=0)]
        return sizes_BT.masked_fill(targets_BT == IGNORED, 0).sum(dim=1).clamp(min=1)


def block_bits(logits_BTV: Tensor, targets_BT: Tensor, sizes_B: Tensor) -> Tensor:
    """Return the bits per byte of each block; 0 if none of its tokens is learnt."""
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
