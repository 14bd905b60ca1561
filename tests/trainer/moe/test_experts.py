"""The in-layer experts as a function: values, every gradient, what is kept, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from moe_trainer.moe import looped
from moe_trainer.moe.experts import swiglu_experts

from .conftest import ROUTINGS, Batch, random_batch

#: ‖error‖ / ‖reference in fp64‖ of the output and of each gradient.
TOLERANCES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}


def assert_equals_reference(batch: Batch, dtype: torch.dtype, recompute: bool = False) -> None:
    expected = batch.run("reference")
    for name, tensor in batch.to(dtype).run("torch", recompute).items():
        error = (tensor.double() - expected[name]).norm() / expected[name].norm().clamp(min=1e-30)
        assert error < TOLERANCES[dtype], f"{name}: {error:.2e}"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("active", range(1, 9))
@pytest.mark.parametrize("routing", ROUTINGS)
def test_output_and_every_gradient_are_those_of_the_reference(
    routing: str, active: int, dtype: torch.dtype
) -> None:
    batch = random_batch(tokens=37, hidden=24, inner=20, experts=9, active=active)
    assert_equals_reference(ROUTINGS[routing](batch), dtype)


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_where_the_rows_are_cut_changes_nothing(
    routing: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looped, "visit_rows", lambda hidden, inner: rows)
    assert_equals_reference(ROUTINGS[routing](random_batch(tokens=41)), torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_recomputation_and_repetition_change_no_bit(routing: str, dtype: torch.dtype) -> None:
    batch = ROUTINGS[routing](random_batch(tokens=67)).to(dtype)
    kept = batch.run("torch")
    for again in (batch.run("torch", recompute=True), batch.run("torch")):
        assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


def function_of(batch: Batch, recompute: bool = False) -> tuple[tuple[Tensor, ...], object]:
    """Return the inputs that have gradients, and the function of them."""
    inputs = (batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)

    def function(x: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        return swiglu_experts(
            x, batch.experts_NK, weights, gate_up, down, backend="torch", recompute=recompute
        )

    return tuple(tensor.detach().requires_grad_() for tensor in inputs), function


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_finite_differences(routing: str, recompute: bool) -> None:
    inputs, function = function_of(
        ROUTINGS[routing](random_batch(tokens=5, hidden=4, inner=3, experts=4)), recompute
    )
    assert torch.autograd.gradcheck(function, inputs)


def test_a_weight_of_zero_has_a_gradient() -> None:
    batch = random_batch(tokens=5, hidden=4, inner=3, experts=4)
    inputs, function = function_of(replace(batch, weights_NK=torch.zeros_like(batch.weights_NK)))
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_bit(reentrant: bool) -> None:
    batch = random_batch()
    inputs, function = function_of(batch)
    checkpoint(function, *inputs, use_reentrant=reentrant).backward(batch.dy_ND)
    expected = batch.run("torch")
    for name, tensor in zip(("x_ND", "weights_NK", "gate_up_E2FD", "down_EDF"), inputs, strict=True):
        assert torch.equal(tensor.grad, expected[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_batch_without_tokens_has_no_output_and_gradients_of_zero(backend: str) -> None:
    batch = random_batch(tokens=0)
    found = batch.run(backend)  # type: ignore[arg-type]
    assert found["y_ND"].shape == found["x_ND"].shape == (0, 16)
    assert not found["gate_up_E2FD"].any()
    assert not found["down_EDF"].any()


def test_a_batch_whose_slots_were_all_dropped_has_zeros() -> None:
    batch = random_batch()
    found = replace(batch, experts_NK=torch.full_like(batch.experts_NK, 5)).run("torch")
    assert not any(tensor.any() for tensor in found.values())


def test_gradients_reach_only_what_asks_for_them() -> None:
    batch = random_batch()
    x_ND = batch.x_ND.clone().requires_grad_()
    y_ND = swiglu_experts(x_ND, batch.experts_NK, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)
    y_ND.backward(batch.dy_ND)
    assert torch.equal(x_ND.grad, batch.run("torch")["x_ND"])  # type: ignore[arg-type]


def bytes_kept(batch: Batch, recompute: bool = False) -> int:
    """Return the bytes that the forward pass keeps for the backward pass, weights of the layer apart."""
    inputs, function = function_of(batch, recompute)
    layer = {tensor.untyped_storage().data_ptr() for tensor in inputs[2:]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in layer:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*inputs)  # type: ignore[operator]
    return sum(kept.values())


SIZES = [(2048, 128, 256, 8, 2), (2048, 128, 64, 32, 4), (64, 1536, 256, 128, 8)]


@pytest.mark.parametrize(("tokens", "hidden", "inner", "experts", "active"), SIZES)
def test_little_more_than_x_and_the_pre_activation_is_kept(
    tokens: int, hidden: int, inner: int, experts: int, active: int
) -> None:
    batch = random_batch(
        tokens, 8, 8, experts, active
    )  # its big tensors are made below, without random numbers
    batch = replace(
        batch,
        x_ND=torch.ones(tokens, hidden, dtype=torch.bfloat16),
        weights_NK=batch.weights_NK.float(),
        gate_up_E2FD=torch.ones(1, dtype=torch.bfloat16).expand(experts, 2 * inner, hidden),
        down_EDF=torch.ones(1, dtype=torch.bfloat16).expand(experts, hidden, inner),
    )
    x_bytes, h_bytes = 2 * tokens * hidden, 4 * tokens * active * inner
    assert x_bytes + h_bytes <= bytes_kept(batch) <= 1.05 * (x_bytes + h_bytes)
    assert bytes_kept(batch, recompute=True) <= 1.05 * (x_bytes + h_bytes) - h_bytes


def test_inference_keeps_nothing_and_changes_no_bit() -> None:
    batch = random_batch(tokens=67)
    inputs, function = function_of(batch)
    kept: list[Tensor] = []
    with torch.inference_mode(), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: None):
        y_ND = function(*inputs)  # type: ignore[operator]
    assert not kept
    assert not y_ND.requires_grad
    assert torch.equal(y_ND, batch.run("torch")["y_ND"])


X, W = torch.ones(3, 16), torch.ones(3, 2)
E, UP, DOWN = torch.zeros(3, 2, dtype=torch.int64), torch.ones(5, 8, 16), torch.ones(5, 16, 4)
OUTSIDE = E.clone().fill_(6)

REFUSED = {
    "gate_up has shape [8, 16], but must be E x 2F x D (gate over up), with no size 0": (X, E, W, UP[0], DOWN),
    "gate_up has shape [5, 7, 16], but must be E x 2F x D (gate over up), with no size 0": (
        X, E, W, UP[:, :7], DOWN,
    ),
    "gate_up has shape [0, 8, 16], but must be E x 2F x D (gate over up), with no size 0": (
        X, E, W, UP[:0], DOWN[:0],
    ),
    "down has shape [5, 16, 3], but with gate_up of shape [5, 8, 16] it must have [5, 16, 4]": (X, E, W, UP, DOWN[..., :3]),
    "gate_up is torch.int64, but in-layer experts compute in torch.float64, torch.float32, torch.bfloat16, "
    "torch.float16: convert the layer to one of them": (X.long(), E, W, UP.long(), DOWN.long()),
    "x has shape [3, 15], but gate_up's hidden size is 16: pass N x 16": (X[:, 1:], E, W, UP, DOWN),
    "x has shape [1, 3, 16], but gate_up's hidden size is 16: pass N x 16": (X[None], E, W, UP, DOWN),
    "x, gate_up and down must have one dtype, not torch.float64, torch.float32 and torch.float32: convert x "
    "to that of the weights": (X.double(), E, W, UP, DOWN),
    "experts [3, 1] and weights [3, 2] must both be 3 tokens by K": (X, E[:, :1], W, UP, DOWN),
    "experts [2, 2] and weights [2, 2] must both be 3 tokens by K": (X, E[:2], W[:2], UP, DOWN),
    "experts [3, 0] gives a token no slot: K must be 1 or more": (X, E[:, :0], W[:, :0], UP, DOWN),
    "experts has dtype torch.float32, but must hold numbers of in-layer experts: pass torch.int64": (X, E.float(), W, UP, DOWN),
    "weights has dtype torch.int64, but must be floating-point: pass torch.float32": (X, E, W.long(), UP, DOWN),
    "x, experts, weights, gate_up and down must be on one device, not meta, cpu, cpu, cpu, cpu: move them": (
        X.to("meta"), E, W, UP, DOWN,
    ),
    "experts holds numbers from 6 to 6, but must be 0 to 4, or 5 for a slot that was dropped": (
        X, OUTSIDE, W, UP, DOWN,
    ),
    "experts holds numbers from -1 to -1, but must be 0 to 4, or 5 for a slot that was dropped": (
        X, E - 1, W, UP, DOWN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_input_that_does_not_fit_is_refused_by_name(message: str) -> None:
    with pytest.raises(ValueError) as error:
        swiglu_experts(*REFUSED[message])
    assert str(error.value) == message
