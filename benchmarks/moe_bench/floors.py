"""What a layer cannot be faster than, or is usually compared with; timed in the same rounds as the layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from moe_bench.cases import Batch, Case
from moe_bench.timing import Samples, Spread, Step

PLAIN, PRODUCTS, READ = "plain matrix product", "the layer's products alone", "reading memory"

#: Sides of the plain product: large enough for a device's best rate.
PLAIN_SIZE = {"cpu": 1024, "cuda": 8192}
#: More than any cache holds.
READ_BYTES = 4 << 30


@dataclass
class Floors:
    """Steps to be timed beside the layers, and how their times are reported."""

    steps: dict[str, Step] = field(default_factory=dict)
    reports: list[Callable[[Samples], dict[str, Any]]] = field(default_factory=list)
    products: str | None = None  #: The step of the layer's products alone, if there is one.

    def report(self, samples: Samples) -> dict[str, Any]:
        """Return what is known of the floors."""
        return {name: value for report in self.reports for name, value in report(samples).items()}


def floors(case: Case, batches: Sequence[Batch], dtype: torch.dtype, device: str) -> Floors:
    """Return the floors of a case.

    Always a plain matrix product. On a CPU the layer's own products with nothing around them; decoding on
    an accelerator, the time that reading the weights of the in-layer experts in use takes.
    """
    found = Floors()
    _add_plain_product(found, PLAIN_SIZE[device], dtype, device)
    if device == "cpu":
        found.steps[PRODUCTS] = _products(case, batches, dtype)
        found.products = PRODUCTS
        found.reports.append(
            lambda samples: {"productsAloneMs": Spread.of(samples.total(PRODUCTS)).to_json()}
        )
    elif not case.backward:
        _add_reading(found, case, batches[0], dtype, device)
    return found


def _add_plain_product(found: Floors, size: int, dtype: torch.dtype, device: str) -> None:
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def step(number: int, lap: Callable[[], None]) -> None:
        lap()
        torch.mm(left, right, out=out)
        lap()

    def report(samples: Samples) -> dict[str, Any]:
        spread = Spread.of(samples.total(PLAIN))
        tflops = float(f"{2 * size**3 / spread.median / 1e9:.4g}")
        return {"plainProduct": {"size": size, "ms": spread.to_json(), "tflops": tflops}}

    found.steps[PLAIN] = step
    found.reports.append(report)


def _products(case: Case, batches: Sequence[Batch], dtype: torch.dtype) -> Step:
    """Return the in-layer experts' products alone: contiguous operands, results into memory that is there.

    Forward two per expert, backward four more; the router's are not among them.
    """
    shape = case.shape
    x_SD, y_SD = (torch.randn(shape.slots, shape.hidden, dtype=dtype) for _ in range(2))
    h_S2F = torch.randn(shape.slots, 2 * shape.inner, dtype=dtype)
    a_SF, da_SF = (torch.randn(shape.slots, shape.inner, dtype=dtype) for _ in range(2))
    gate_up_E2FD, dgate_up_E2FD = (
        torch.randn(shape.experts, 2 * shape.inner, shape.hidden, dtype=dtype) for _ in range(2)
    )
    down_EDF, ddown_EDF = (
        torch.randn(shape.experts, shape.hidden, shape.inner, dtype=dtype) for _ in range(2)
    )
    rows = [_rows(batch.experts_NK, shape.experts) for batch in batches]

    def step(number: int, lap: Callable[[], None]) -> None:
        lap()
        for e, part in enumerate(rows[number]):
            torch.mm(x_SD[part], gate_up_E2FD[e].T, out=h_S2F[part])
            torch.mm(a_SF[part], down_EDF[e].T, out=y_SD[part])
        if case.backward:
            for e, part in enumerate(rows[number]):
                torch.mm(y_SD[part], down_EDF[e], out=da_SF[part])
                torch.mm(y_SD[part].T, a_SF[part], out=ddown_EDF[e])
                torch.mm(h_S2F[part].T, x_SD[part], out=dgate_up_E2FD[e])
                torch.mm(h_S2F[part], gate_up_E2FD[e], out=x_SD[part])
        lap()

    return step


def _rows(experts_NK: Tensor, experts: int) -> list[slice]:
    ends = torch.bincount(experts_NK.flatten(), minlength=experts).cumsum(0).tolist()
    return [slice(start, end) for start, end in pairwise([0, *ends])]


def _add_reading(found: Floors, case: Case, batch: Batch, dtype: torch.dtype, device: str) -> None:
    """Time reading memory; the floor is how long the weights in use take at that rate."""
    numbers = torch.ones(READ_BYTES // 4, dtype=torch.float32, device=device)
    used = batch.experts_NK.unique().numel()
    width = torch.empty((), dtype=dtype).element_size()
    weights = used * 3 * case.shape.hidden * case.shape.inner * width

    def step(number: int, lap: Callable[[], None]) -> None:
        lap()
        numbers.sum()
        lap()

    def report(samples: Samples) -> dict[str, Any]:
        rate = READ_BYTES / Spread.of(samples.total(READ)).median
        return {
            "readTBPerSecond": float(f"{rate / 1e9:.4g}"),
            "weightBytesInUse": weights,
            "weightReadFloorMs": float(f"{weights / rate:.4g}"),
        }

    found.steps[READ] = step
    found.reports.append(report)
