"""How evenly a layer's slots are spread over its in-layer experts: counts, measures, and the selection bias.

counts    how many slots chose each in-layer expert, as integers, in a batch, a step or a validation
load      a layer's counts as shares, and the figures computed from them: LayerLoad
bias      moved after each step against the load, so that balance costs no gradient

Besides the package's shapes: L layers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from moe_trainer.moe.routing import Routing

BiasRule = Literal["Sign", "Proportional"]


@torch.no_grad()
def update_bias(bias_E: Tensor, counts_E: Tensor, rate: float, rule: BiasRule) -> None:
    """Raise the bias of in-layer experts below the mean load and lower that of those above it, in place.

        Sign           b += rate * sign(mean - count)        (Wang et al., arXiv 2408.15664, algorithm 1)
        Proportional   b += rate * (mean - count) / mean

    Only differences between biases matter, so the mean is kept at 0. If nothing was counted, nothing changes. Given
    the counts of all processes (``StepCounts``), all processes make the same change.
    """
    counts_E = counts_E.to(bias_E)
    mean = counts_E.mean()
    missing_E = mean - counts_E
    bias_E += rate * (missing_E.sign() if rule == "Sign" else missing_E / mean.clamp(min=1e-20))
    bias_E -= bias_E.mean()


@dataclass(frozen=True)
class LayerLoad:
    """How one layer's slots were spread. Without any slot, figures that cannot be known are NaN."""

    counts: tuple[int, ...]  #: The number of slots that chose each in-layer expert.
    dropped: int = 0  #: How many of these were dropped, because their in-layer expert was full.
    logit_rms: float = math.nan  #: The root mean square of the router's logits.

    @property
    def slots(self) -> int:
        """The number of slots."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each in-layer expert's share of the slots; they sum to 1."""
        return tuple(count / self.slots if self.slots else math.nan for count in self.counts)

    @property
    def max_violation(self) -> float:
        """MaxVio (Wang et al., arXiv 2408.15664): how far the busiest in-layer expert is above its fair share.

        0 is perfect balance, 1 means that it has twice its fair share, E - 1 that it has everything.
        """
        return max(self.shares) * len(self.counts) - 1

    @property
    def entropy(self) -> float:
        """The entropy of the shares divided by ln E: 1 is perfect balance, 0 means that one has everything; 1 if E is 1."""
        if len(self.counts) == 1:
            return 1.0
        if not self.slots:
            return math.nan
        return -sum(p * math.log(p) for p in self.shares if p) / math.log(len(self.counts))

    @property
    def dead(self) -> int:
        """The number of in-layer experts that no slot chose."""
        return self.counts.count(0)

    @property
    def drop_rate(self) -> float:
        """The share of the slots that were dropped."""
        return self.dropped / self.slots if self.slots else math.nan


class StepCounts:
    """The counts of every layer over the micro-batches of one optimizer step, and over all processes.

    The load-balancing loss with scope GlobalBatch takes f from here (Qiu et al., "Demons in the Detail", arXiv
    2501.11873): for each micro-batch the counts of those before it in the step, and its own. Layers only return their
    counts, so a forward pass that is run again for its activations counts nothing twice.
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        """Start a step; with a process group, counts are summed over its processes."""
        self._process_group = process_group
        self._counts_LE: Tensor | None = None
        self._dropped_L: Tensor | None = None
        self._mean_squares_L: list[Tensor] = []

    def add(self, routings: Sequence[Routing]) -> Tensor:
        """Add a micro-batch, with one routing per layer; return the step's counts so far, int64, L x E.

        It does not wait for a device. With a process group, all processes must call it equally often.
        """
        counts_LE = torch.stack([routing.counts_GE.sum(dim=0) for routing in routings])
        dropped_L = torch.stack([routing.dropped for routing in routings])
        squares_L = torch.stack([routing.logit_rms.square() for routing in routings])
        if self._process_group is not None:  # in one exchange; fp64 holds integers up to 2^53
            both = torch.cat((counts_LE, dropped_L[:, None], squares_L[:, None]), dim=1).double()
            distributed.all_reduce(both, group=self._process_group)
            counts_LE, dropped_L = both[:, :-2].long(), both[:, -2].long()
            squares_L = both[:, -1] / self._process_group.size()
        if self._counts_LE is not None and self._dropped_L is not None:
            counts_LE, dropped_L = self._counts_LE + counts_LE, self._dropped_L + dropped_L
        self._counts_LE, self._dropped_L = counts_LE, dropped_L
        self._mean_squares_L.append(squares_L)
        return counts_LE

    def loads(self) -> list[LayerLoad]:
        """Return each layer's load over the step; waits for the device. Empty before the first ``add``.

        The root mean square of the logits is over all micro-batches with equal weight.
        """
        if self._counts_LE is None or self._dropped_L is None:
            return []
        rms_L = torch.stack(self._mean_squares_L).mean(dim=0).sqrt()
        layers = zip(self._counts_LE.tolist(), self._dropped_L.tolist(), rms_L.tolist(), strict=True)
        return [LayerLoad(tuple(counts), dropped, rms) for counts, dropped, rms in layers]
