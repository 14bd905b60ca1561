"""What a run measures every ``validationEvery`` steps, on training-side text that is kept apart."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.models.causal_model import CausalModel
from moe_trainer.moe.balance import LayerLoad, StepCounts


def validate(
    model: CausalModel,
    blocks_BT: Tensor,
    sizes_V: Tensor,
    rows: int,
    positions: Callable[[Tensor], Tensor | None] = lambda ids_BT: None,
) -> tuple[float, list[LayerLoad]]:
    """Return the bits per byte of some blocks, and each layer's load on them; ``rows`` blocks at a time.

    ``sizes_V`` holds the bytes of each token. Those without any (the ends of documents) are predicted but not
    counted. ``positions`` places tokens in their documents, where training keeps those apart (Run.positions). The
    model is left in training mode.
    """
    model.eval()
    nats, counts = torch.zeros((), dtype=torch.float64), StepCounts()
    with torch.no_grad():  # inference_mode leaves gathered weights that cannot be trained
        for ids_BT in torch.split(blocks_BT, rows):
            seen_BT = ids_BT[:, :-1]
            logits_BTV, routings = model.with_routing(seen_BT, positions(seen_BT))
            nats_N = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
            nats += nats_N[sizes_V[ids_BT[:, 1:]].flatten() > 0].double().sum()
            if routings:
                counts.add(routings)
    model.train()
    count = int(sizes_V[blocks_BT[:, 1:]].sum())
    return float(nats) / (math.log(2) * count), counts.loads()
