"""One case: errors, memory and time of every layer that can be had."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moe_bench.cases import BATCHES, Batch, Case, Weights, draw_batch, draw_weights
from moe_bench.floors import floors
from moe_bench.graphs import Graph, check_allocator
from moe_bench.layers import LAYERS, OURS, TRANSFORMERS, Layer
from moe_bench.timing import Clock, CpuClock, CudaClock, Samples, Spread, Step, take_turns
from moe_trainer.moe.experts import reference_experts

#: Errors are taken on the first tokens of a batch: fp64 of a whole one would not fit beside the layers.
ERROR_TOKENS = 2048
ERROR_NAMES = ("y", "dx", "dRouter", "dGateUp", "dDown")

#: Told the layer and what is done with it, before it is done.
Announce = Callable[[str, str], None]


@dataclass
class Bench:
    """A case made real: weights and batches on a device, and what was found so far."""

    case: Case
    device: str
    dtype: torch.dtype
    weights: Weights
    batches: list[Batch]
    layers: dict[str, Layer] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def draw(case: Case, device: str, seed: int = 0) -> "Bench":
        """Draw weights and batches."""
        dtype = case.dtype(device)
        generator = torch.Generator(device).manual_seed(seed)
        weights = draw_weights(case.shape, dtype, generator)
        batches = [draw_batch(case, weights.router_ED, generator) for _ in range(BATCHES)]
        batches = [
            Batch(batch.x_ND.to(dtype).requires_grad_(case.backward), batch.dy_ND.to(dtype), batch.experts_NK)
            for batch in batches
        ]
        return Bench(case, device, dtype, weights, batches)

    @property
    def clock(self) -> Clock:
        """Return the device's clock."""
        return CpuClock() if self.device == "cpu" else CudaClock()


def measure(
    case: Case, device: str, without: dict[str, str], rounds: int, announce: Announce
) -> dict[str, Any]:
    """Return what was found of one case. ``without``: layers that are not tried again, and why."""
    bench = Bench.draw(case, device)
    expected = reference(bench)
    for name, build in LAYERS.items():
        if name in without:
            bench.results[name] = {"failed": without[name]}
            continue
        announce(name, "errors and memory")
        try:
            layer = build(bench.weights, case.shape)
            bench.results[name] = errors(bench, layer, expected) | memory(bench, layer)
            bench.layers[name] = layer
        except Exception as error:
            _fail_if_the_device_did(device)
            bench.results[name] = {"absent": _in_words(error)}
    del expected
    counts_E = torch.bincount(bench.batches[0].experts_NK.flatten(), minlength=case.shape.experts)
    found = time_all(bench, rounds, announce) if case.kind != "memory" else {}
    return {
        "shape": vars(case.shape),
        "routing": case.routing,
        "kind": case.kind,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "maxLoadOverMean": round(float(counts_E.max() / counts_E.float().mean()), 3),
        "unusedExperts": int((counts_E == 0).sum()),
        **found,
        "layers": bench.results,
    }


def reference(bench: Bench) -> list[Tensor]:
    """Return output and gradients in fp64 of the first tokens, in the order of ERROR_NAMES."""
    batch, weights = bench.batches[0].first(ERROR_TOKENS), bench.weights
    leaves = [
        tensor.detach().double().requires_grad_(bench.case.backward)
        for tensor in (batch.x_ND, weights.router_ED, weights.gate_up_E2FD, weights.down_EDF)
    ]
    x_ND, router_ED, gate_up_E2FD, down_EDF = leaves
    weights_NE = (x_ND @ router_ED.T).softmax(dim=-1)
    weights_NK, experts_NK = weights_NE.topk(bench.case.shape.active, dim=-1)
    weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
    if not torch.equal(experts_NK.sort().values, batch.experts_NK.sort().values):
        raise AssertionError("the batch's input does not lead to the choice it was made for")
    y_ND = reference_experts(x_ND, experts_NK, weights_NK, gate_up_E2FD, down_EDF)
    if not bench.case.backward:
        return [y_ND]
    return [y_ND.detach(), *torch.autograd.grad(y_ND, leaves, batch.dy_ND.double())]


def errors(bench: Bench, layer: Layer, expected: Sequence[Tensor]) -> dict[str, Any]:
    """Return the norm of each error over the norm of what is right."""
    batch = bench.batches[0].first(ERROR_TOKENS)
    if bench.case.backward:
        x_ND = batch.x_ND.detach().requires_grad_()
        y_ND = layer(x_ND)
        dx, drouter, dgate_up, ddown = torch.autograd.grad(y_ND, [x_ND, *layer.leaves()], batch.dy_ND)
        found = [y_ND.detach(), dx, drouter, layer.gate_up_gradient(dgate_up), ddown]
    else:
        with torch.no_grad():
            found = [layer(batch.x_ND)]
    return {
        "errors": {
            name: float(f"{float((a.double() - b).norm() / b.norm()):.3g}")
            for name, a, b in zip(ERROR_NAMES, found, expected, strict=False)
        }
    }


def memory(bench: Bench, layer: Layer) -> dict[str, Any]:
    """Return bytes beyond weights and batch: kept between the passes, and on an accelerator the peak.

    Kept is every storage that autograd holds, x included, weights not. ``keptOverFormula`` is its ratio to
    x and the pre-activation alone. The peak includes output and gradients.
    """
    if not bench.case.backward:
        return {}
    batch, kept = bench.batches[0], {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    leaves = [batch.x_ND, *layer.leaves()]
    on_gpu = bench.device != "cpu"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y_ND = layer(batch.x_ND)
    gradients = torch.autograd.grad(y_ND, leaves, batch.dy_ND)
    found: dict[str, Any] = {"peakBytes": torch.cuda.max_memory_allocated() - before} if on_gpu else {}
    del y_ND, gradients
    for weight in layer.leaves():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    formula = bench.case.shape.kept_bytes(batch.x_ND.element_size())
    return found | {
        "keptBytes": sum(kept.values()),
        "keptOverFormula": round(sum(kept.values()) / formula, 3),
    }


def time_all(bench: Bench, rounds: int, announce: Announce) -> dict[str, Any]:
    """Time every layer beside its floors, eagerly and as a replayed graph; return what is no layer's."""
    floor = floors(bench.case, bench.batches, bench.dtype, bench.device)
    steps = {name: step(bench, layer) for name, layer in bench.layers.items()}
    samples = take_turns(
        steps | floor.steps, bench.clock, rounds, BATCHES, lambda name: announce(name, "timing")
    )
    parts = ("forward", "backward") if bench.case.backward else ("forward",)
    for name in bench.layers:
        result = bench.results[name]
        result["ms"] = samples.spreads(name, parts)
        result["tflops"] = _tflops(bench.case, result["ms"])
        result["rounds"] = len(samples.rounds[name])
        if floor.products:
            result["overItsProducts"] = samples.ratio(name, floor.products).to_json()
    if bench.device != "cpu":
        time_graphs(bench, rounds, announce)
    report = floor.report(samples)
    for name in bench.layers:
        bench.results[name] |= against_floors(bench.results[name], report)
    return report | {"speedups": speedups(samples, list(bench.layers))}


def against_floors(result: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's share of the plain product's rate, and how often the floor of reading it takes.

    Of the replayed graph where there is one: without the time that launching takes.
    """
    timed = result["graph"] if "ms" in result.get("graph", {}) else result
    part = "total" if "total" in timed["ms"] else "forward"
    share = timed["tflops"][part] / report["plainProduct"]["tflops"]
    found = {"shareOfPlainProduct": float(f"{share:.3g}")}
    if "weightReadFloorMs" in report:
        found["overReadFloor"] = float(f"{timed['ms'][part]['median'] / report['weightReadFloorMs']:.3g}")
    return found


def step(bench: Bench, layer: Layer) -> Step:
    """Return the step that is timed: forward, and backward if there is one."""
    leaves = layer.leaves()

    def forward(number: int, lap: Callable[[], None]) -> None:
        lap()
        with torch.no_grad():
            layer(bench.batches[number].x_ND)
        lap()

    def forward_and_backward(number: int, lap: Callable[[], None]) -> None:
        batch = bench.batches[number]
        lap()
        y_ND = layer(batch.x_ND)
        lap()
        torch.autograd.grad(y_ND, [batch.x_ND, *leaves], batch.dy_ND)
        lap()

    return forward_and_backward if bench.case.backward else forward


def time_graphs(bench: Bench, rounds: int, announce: Announce) -> None:
    """Capture each layer in a CUDA graph and time its replay; a layer that cannot be captured says why."""
    graphs: dict[str, Graph] = {}
    pool = torch.cuda.graph_pool_handle()
    for name, layer in bench.layers.items():
        announce(name, "capturing a graph")
        allocated = torch.cuda.memory_allocated()
        try:
            graphs[name] = Graph(layer, bench.batches, bench.case.backward, pool)
        except Exception as error:
            _fail_if_the_device_did(bench.device)
            bench.results[name]["graph"] = {"absent": _in_words(error)}
        if name not in graphs:  # only now is what the error held free
            check_allocator(allocated)
    steps = {name: graph.replay for name, graph in graphs.items()}
    samples = take_turns(
        steps, bench.clock, rounds, BATCHES, lambda name: announce(name, "replaying its graph")
    )
    for name in graphs:
        spread = samples.spreads(name, ("total",))
        bench.results[name]["graph"] = {"ms": spread, "tflops": _tflops(bench.case, spread)}


def speedups(samples: Samples, names: Sequence[str]) -> dict[str, Any]:
    """Return how many times as long each other layer takes as ours, for each of our backends.

    ``transformers' best`` is the one of its implementations with the shortest median.
    """
    ours = [name for name in names if name.startswith(OURS.format(""))]
    others = {name: name for name in names if name not in ours}
    theirs = [name for name in names if name.startswith(TRANSFORMERS.format(""))]
    if theirs:
        best = min(theirs, key=lambda name: Spread.of(samples.total(name)).median)
        others["transformers' best"] = best
    return {
        name: {label: samples.ratio(other, name).to_json() for label, other in others.items()}
        for name in ours
    }


def _tflops(case: Case, milliseconds: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return 6 / 12 / 18 NKDF operations over the median time of forward, backward and both."""
    forward = case.shape.forward_flop
    operations = {"forward": forward, "backward": 2 * forward, "total": (3 if case.backward else 1) * forward}
    return {
        part: float(f"{operations[part] / spread['median'] / 1e9:.4g}")
        for part, spread in milliseconds.items()
    }


def _in_words(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if type(error).__name__ == "Absent" else f"{type(error).__name__}: {text}"


def _fail_if_the_device_did(device: str) -> None:
    """Let a device that can no longer be used end this process: whoever started it goes on without the layer."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
