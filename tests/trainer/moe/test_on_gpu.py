"""Every backend that runs on the device here, on sizes of real layers, against the reference in fp64."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moe_trainer.moe import backends
from moe_trainer.moe.backends import ENTRIES, Backend
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.kernels import Case as Call

from .conftest import ROUTINGS, Batch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from moe_bench.cases import DECODING, TRAINING, Case, Shape
from moe_bench.layers import Ours
from moe_bench.measure import Bench, errors, memory, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no accelerator here"),
]

BF16 = torch.bfloat16
#: ‖error‖ / ‖right‖ of a whole result in bf16: a few roundings of 2^-9 each.
NORM = 1e-2
#: Of one row: relative to the row, and to the root mean square over rows, for what cancels.
ROW, ROOT = 3e-2, 5e-2

#: Real widths with few tokens, of a number that nothing divides, and fewer in-layer experts where they are large.
SHAPES = {
    "7b-n256": Shape("", 2039, 1536, 256, 128, 8),
    "30b-n512": Shape("", 1021, 4096, 512, 32, 8),
    "120b-n2048": Shape("", 1021, 4096, 2048, 8, 4),
    "qwen3-30b-a3b": Shape("", 1021, 2048, 768, 128, 8),
    "small": Shape("", 333, 128, 64, 32, 4),
}


def draw(shape: Shape, seed: int = 0) -> Batch:
    """Draw a batch on the device; its choice is on the CPU until the batch is converted."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device="cuda")

    scores_NE = torch.rand(shape.tokens, shape.experts, generator=torch.Generator().manual_seed(seed))
    weights_NK, experts_NK = scores_NE.topk(shape.active)
    return Batch(
        normal(shape.tokens, shape.hidden),
        experts_NK,
        weights_NK,
        normal(shape.experts, 2 * shape.inner, shape.hidden) / shape.hidden**0.5,
        normal(shape.experts, shape.hidden, shape.inner) / shape.inner**0.5,
        normal(shape.tokens, shape.hidden),
    )


def call(shape: Shape, gradients: bool = True) -> Call:
    return Call(
        "cuda",
        BF16,
        shape.tokens,
        shape.hidden,
        shape.inner,
        shape.experts,
        shape.active,
        gradients,
        torch.cuda.get_device_capability(),
    )


def skip_unless_it_runs(backend: Backend, shape: Shape, gradients: bool = True) -> None:
    refusal = ENTRIES[backend].refusal(call(shape, gradients))
    if refusal is not None:
        pytest.skip(refusal)


def assert_close(found: Tensor, right: Tensor, name: str) -> None:
    error, right = (found.double() - right).flatten(0, -2), right.flatten(0, -2)
    assert error.norm() <= NORM * right.norm(), name
    rows, allowed = right.norm(dim=-1), error.norm(dim=-1)
    root = rows.square().mean().sqrt()
    assert bool((allowed <= ROW * rows + ROOT * root).all()), (
        f"{name}: {int(allowed.argmax())} is the worst row"
    )


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("backend", ENTRIES)
def test_output_and_every_gradient_are_those_of_the_reference(
    backend: Backend, name: str, routing: str
) -> None:
    shape = SHAPES[name]
    skip_unless_it_runs(backend, shape)
    batch = ROUTINGS[routing](draw(shape)).to(BF16, "cuda")
    expected = batch.to(torch.float64, "cuda").run("reference")
    for result, tensor in batch.run(backend).items():
        assert_close(tensor, expected[result], result)


@pytest.mark.parametrize("backend", ENTRIES)
def test_recomputation_changes_no_bit(backend: Backend) -> None:
    shape = SHAPES["7b-n256"]
    skip_unless_it_runs(backend, shape)
    batch = draw(shape).to(BF16, "cuda")
    kept, again = batch.run(backend), batch.run(backend, recompute=True)
    for name in ("y_ND", "gate_up_E2FD", "down_EDF"):
        torch.testing.assert_close(again[name], kept[name], rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("backend", ENTRIES)
def test_tensors_may_be_on_another_device_than_the_current_one(backend: Backend) -> None:
    shape = SHAPES["small"]
    skip_unless_it_runs(backend, shape)
    batch = draw(shape)
    expected, found = batch.to(BF16, "cuda:0").run(backend), batch.to(BF16, "cuda:1").run(backend)
    assert torch.cuda.current_device() == 0
    for name, tensor in found.items():
        assert tensor.device.index == 1
        torch.testing.assert_close(tensor.cpu(), expected[name].cpu(), rtol=0, atol=0)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend", ENTRIES)
def test_a_backward_pass_may_be_the_first_thing_that_its_thread_does(
    backend: Backend, recompute: bool
) -> None:
    shape = SHAPES["small"]
    skip_unless_it_runs(backend, shape)
    batch = draw(shape).to(BF16, "cuda")
    expected, found = batch.run(backend, recompute=recompute), {}
    thread = threading.Thread(target=lambda: found.update(batch.run(backend, recompute=recompute)))
    thread.start()
    thread.join()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    assert found


@pytest.mark.parametrize("shape", DECODING, ids=lambda shape: shape.name)
@pytest.mark.parametrize("backend", ENTRIES)
def test_decoding_gives_what_the_reference_does(backend: Backend, shape: Shape) -> None:
    skip_unless_it_runs(backend, shape, gradients=False)
    batch = draw(shape).to(BF16, "cuda")
    with torch.no_grad():
        found, expected = (
            swiglu_experts(b.x_ND, b.experts_NK, b.weights_NK, b.gate_up_E2FD, b.down_EDF, backend=name)
            for b, name in ((batch, backend), (batch.to(torch.float64, "cuda"), "reference"))
        )
    assert_close(found, expected, "y_ND")


def captured(run: Callable[[], tuple[Tensor, ...]]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


@pytest.mark.parametrize("backend", [name for name in ENTRIES if name != "torch"])
def test_a_captured_pass_follows_another_choice_of_experts(backend: Backend) -> None:
    shape = SHAPES["7b-n256"]
    skip_unless_it_runs(backend, shape)
    fixed = draw(shape, seed=1).to(BF16, "cuda")
    leaves = [tensor.requires_grad_() for tensor in (fixed.x_ND, fixed.weights_NK, fixed.gate_up_E2FD)]

    def run() -> tuple[Tensor, ...]:
        y_ND = swiglu_experts(
            leaves[0], fixed.experts_NK, leaves[1], leaves[2], fixed.down_EDF, backend=backend
        )
        return (y_ND.detach(), *torch.autograd.grad(y_ND, leaves, fixed.dy_ND))

    graph, results = captured(run)
    other = ROUTINGS["all to one"](draw(shape, seed=2)).to(BF16, "cuda")
    with torch.no_grad():
        for name in ("x_ND", "experts_NK", "weights_NK", "dy_ND"):
            getattr(fixed, name).copy_(getattr(other, name))
    graph.replay()
    torch.cuda.synchronize()
    replayed = [tensor.clone() for tensor in results]
    for index, (found, expected) in enumerate(zip(replayed, run(), strict=True)):
        assert_close(found, expected.double(), f"result {index}")


@pytest.mark.parametrize("shape", TRAINING[:1] + TRAINING[-1:], ids=lambda shape: shape.name)
def test_the_whole_layer_is_right_and_keeps_no_more_than_it_says(shape: Shape) -> None:
    bench = Bench.draw(Case("train", shape), "cuda")
    layer = Ours(bench.weights, shape, None)
    found = errors(bench, layer, reference(bench))["errors"]
    assert max(found.values()) < NORM, found
    assert memory(bench, layer)["keptOverFormula"] <= 1.05


def test_bf16_on_hopper_and_newer_gets_more_than_plain_torch() -> None:
    if torch.cuda.get_device_capability()[0] not in (9, 10):
        pytest.skip("the kernels are made for compute capability 9 and 10")
    assert backends.choose(call(TRAINING[0])) != "torch"
    assert backends.choose(call(DECODING[0], gradients=False)) != "torch"
