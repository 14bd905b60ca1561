"""How evenly a layer's slots are spread over its in-layer experts: counting, measuring, and the bias.

counts    slots that asked for an in-layer expert, exact integers, of a batch, a step, or a validation
load      a layer's counts as shares, and what is read from them: LayerLoad
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
    """Raise, in place, the bias of in-layer experts below the mean load and lower it of those above.

        Sign           b += rate * sign(mean - count)        (Wang et al., arXiv 2408.15664, algorithm 1)
        Proportional   b += rate * (mean - count) / mean

    Only differences of biases mean anything, so the mean is kept at 0. No counts change nothing. With
    the counts of all processes (``StepCounts``), all of them take the same step.
    """
    counts_E = counts_E.to(bias_E)
    mean = counts_E.mean()
    missing_E = mean - counts_E
    bias_E += rate * (missing_E.sign() if rule == "Sign" else missing_E / mean.clamp(min=1e-20))
    bias_E -= bias_E.mean()


@dataclass(frozen=True)
class LayerLoad:
    """How one layer's slots were spread. Without a slot, what cannot be known is NaN."""

    counts: tuple[int, ...]  #: Slots that asked for each in-layer expert.
    dropped: int = 0  #: Of these, slots that found their in-layer expert full.
    logit_rms: float = math.nan  #: Root mean square of the router's logits.

    @property
    def slots(self) -> int:
        """All slots."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each in-layer expert's share of the slots; they sum to 1."""
        return tuple(count / self.slots if self.slots else math.nan for count in self.counts)

    @property
    def max_violation(self) -> float:
        """MaxVio (Wang et al., arXiv 2408.15664): how far the busiest is above its fair share.

        0 is balance, 1 means that it carries twice its share, E - 1 that it takes all.
        """
        return max(self.shares) * len(self.counts) - 1

    @property
    def entropy(self) -> float:
        """Entropy of the shares over ln E: 1 is balance, 0 means that one takes all; 1 if there is but one."""
        if len(self.counts) == 1:
            return 1.0
        if not self.slots:
            return math.nan
        return -sum(p * math.log(p) for p in self.shares if p) / math.log(len(self.counts))

    @property
    def dead(self) -> int:
        """In-layer experts that no slot asked for."""
        return self.counts.count(0)

    @property
    def drop_rate(self) -> float:
        """Share of the slots that were dropped."""
        return self.dropped / self.slots if self.slots else math.nan


class StepCounts:
    """Counts of every layer over the micro-batches of one optimizer step, and over all processes.

    The load-balancing loss of the scope GlobalBatch takes its f from here (Qiu et al., "Demons in the
    Detail", arXiv 2501.11873): a micro-batch sees the counts of those before it in the step, and its own.
    The layers only hand counts out, so a forward pass that is run again for its activations adds nothing.
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        """Start a step; with a process group, the counts are those of all its processes."""
        self._process_group = process_group
        self._counts_LE: Tensor | None = None
        self._dropped_L: Tensor | None = None
        self._mean_squares_L: list[Tensor] = []

    def add(self, routings: Sequence[Routing]) -> Tensor:
        """Add a micro-batch, one routing a layer; return the step's counts so far, int64, L x E.

        Waits for no device; with a process group, every process must call it as often as the others.
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

        The logits' root mean square is over all micro-batches, which weigh the same.
        """
        if self._counts_LE is None or self._dropped_L is None:
            return []
        rms_L = torch.stack(self._mean_squares_L).mean(dim=0).sqrt()
        layers = zip(self._counts_LE.tolist(), self._dropped_L.tolist(), rms_L.tolist(), strict=True)
        return [LayerLoad(tuple(counts), dropped, rms) for counts, dropped, rms in layers]
