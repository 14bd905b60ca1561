"""Where tensors live: on the accelerator, if torch finds one, else on the CPU. Imports torch."""

from typing import Literal

import torch
from torch import nn

from moe_trainer.models.allocator import keep_freed_memory

#: Scores of one device class are not mixed with another's: rounding differs.
DeviceClass = Literal["cpu", "cuda"]


def use_device(threads: int = 1) -> DeviceClass:
    """Make the accelerator the default of everything that follows; on a CPU, compute with ``threads``.

    A whole process works on one device, so nothing else has to name it. On a CPU, memory that is freed is
    kept for the next step.
    """
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        return "cuda"
    torch.set_num_threads(threads)
    keep_freed_memory()
    return "cpu"


def follow(model: nn.Module) -> None:
    """Make the model's device the default of this thread: torch keeps the default by thread."""
    device = next(model.parameters()).device
    if device.type != "cpu":
        torch.set_default_device(device)
