"""How evenly the routers of a run spread their load, interval by interval, for the report.

Shapes: L layers with a router, E in-layer experts.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from moe_formats.format import Format
from moe_trainer.moe.balance import LayerLoad

#: Most intervals in a report; if there are more, every second one is dropped.
MAX_INTERVALS = 64


class LayerRecord(Format):
    """One layer over the steps since the previous validation."""

    batch_max_violation: float = Field(
        description="MaxVio within a step's batch, averaged over the steps. Small batches of few documents are "
        "uneven even if the interval as a whole is not."
    )
    max_violation: float = Field(description="MaxVio over all slots of the interval together.")
    validation_max_violation: float | None = Field(default=None, description="MaxVio on the validation text.")
    entropy: float = Field(description="Entropy of the load divided by ln E; 1 is perfect balance.")
    dead_experts: int = Field(
        description="The number of in-layer experts that no slot of the interval chose."
    )
    drop_rate: float = Field(description="Share of the slots that were dropped.")
    logit_rms: float = Field(description="Root mean square of the router's logits.")


class LoadRecord:
    """Sums over the steps of an interval. Its tensors are part of checkpoints, so that resuming is exact."""

    def __init__(self, layers: int, experts: int) -> None:
        """Start an interval without steps; everything is on the CPU."""
        self._counts_LE = torch.zeros(layers, experts, dtype=torch.int64, device="cpu")
        self._dropped_L = torch.zeros(layers, dtype=torch.int64, device="cpu")
        self._violations_L = torch.zeros(layers, dtype=torch.float64, device="cpu")
        self._squares_L = torch.zeros(layers, dtype=torch.float64, device="cpu")
        self._steps = torch.zeros((), dtype=torch.int64, device="cpu")

    def add(self, loads: Sequence[LayerLoad]) -> None:
        """Add a step, with one load per layer."""
        self._counts_LE += torch.tensor([load.counts for load in loads], device="cpu")
        self._dropped_L += torch.tensor([load.dropped for load in loads], device="cpu")
        self._violations_L += _float64([load.max_violation for load in loads])
        self._squares_L += _float64([load.logit_rms**2 for load in loads])
        self._steps += 1

    def loads(self) -> list[LayerLoad]:
        """Return each layer's load over the interval."""
        rms_L = (self._squares_L / self._steps).sqrt()
        layers = zip(self._counts_LE.tolist(), self._dropped_L.tolist(), rms_L.tolist(), strict=True)
        return [LayerLoad(tuple(counts), dropped, rms) for counts, dropped, rms in layers]

    def summary(self, validation: Sequence[LayerLoad] | None) -> tuple[LayerRecord, ...]:
        """Return the interval's records, one per layer, including the layers' load on the validation text."""
        violations = (self._violations_L / self._steps).tolist()
        measured = [load.max_violation for load in validation] if validation else [None] * len(violations)
        return tuple(
            LayerRecord(
                batch_max_violation=violation,
                max_violation=load.max_violation,
                validation_max_violation=on_validation,
                entropy=load.entropy,
                dead_experts=load.dead,
                drop_rate=load.drop_rate,
                logit_rms=load.logit_rms,
            )
            for load, violation, on_validation in zip(self.loads(), violations, measured, strict=True)
        )

    def clear(self) -> None:
        """Start the next interval."""
        for tensor in self.tensors().values():
            tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the record, by name."""
        return {
            "counts": self._counts_LE,
            "dropped": self._dropped_L,
            "violations": self._violations_L,
            "squares": self._squares_L,
            "steps": self._steps,
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors`` returned."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def thinned(intervals: Mapping[int, tuple[LayerRecord, ...]]) -> dict[int, tuple[LayerRecord, ...]]:
    """Return at most MAX_INTERVALS of a run's intervals, by step: the newest, and of the others every second one, repeatedly."""
    steps = sorted(intervals)
    while len(steps) > MAX_INTERVALS:
        steps = steps[-1::-2][::-1]
    return {step: intervals[step] for step in steps}


def _float64(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")
