"""AdamW as decoder-only transformers are usually trained: two parameter groups, warm-up, cosine."""

import math

import torch
from torch import nn

from moe_trainer.job_config import TrainingSpec

#: The learning rate ends at this share of its peak.
FINAL_SHARE = 0.1
BETAS = (0.9, 0.95)
EPSILON = 1e-8


def adamw(model: nn.Module, spec: TrainingSpec) -> torch.optim.AdamW:
    """Return the optimizer; norms and embeddings are not decayed."""
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        (kept if parameter.dim() == 1 or "embed_tokens" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=BETAS, eps=EPSILON, fused=True)


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """Return the rate of a step (the first is 0): linear warm-up to the peak, then half a cosine down."""
    warmup = round(spec.warmup_fraction * steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return spec.learning_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
