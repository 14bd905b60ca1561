"""Few slots at once: the bits of the loop, and what is left to it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moe_trainer.moe import looped
from moe_trainer.moe.dispatch import dispatch_slots
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.kernels import Inputs
from moe_trainer.moe.looped import DTYPES, MOST_SLOTS, suits

from .conftest import ROUTINGS, Batch, random_batch


def infer(batch: Batch) -> Tensor:
    with torch.no_grad():
        return swiglu_experts(
            batch.x_ND, batch.experts_NK, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 16, 64])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_result_has_the_bits_of_the_loop(
    routing: str, tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ROUTINGS[routing](random_batch(tokens, hidden=32, inner=24)).to(dtype)
    found = infer(batch)
    monkeypatch.setattr(looped, "suits", lambda *_: False)
    assert torch.equal(found, infer(batch))


def test_what_the_grouped_product_cannot_compute_is_left_to_the_loop() -> None:
    def suitable(batch: Batch) -> bool:
        dispatch = dispatch_slots(batch.experts_NK, len(batch.down_EDF))
        return suits(Inputs(batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF, dispatch))

    batch = random_batch().to(torch.float32)
    assert suitable(batch)
    assert not suitable(random_batch())  # fp64
    assert not suitable(random_batch(inner=6).to(torch.float32))  # rows of 24 bytes
    assert not suitable(random_batch(tokens=0).to(torch.float32))
    assert not suitable(random_batch(tokens=MOST_SLOTS // 2 + 1).to(torch.float32))
    assert not suitable(replace(batch, down_EDF=batch.down_EDF[:1].expand_as(batch.down_EDF)))
