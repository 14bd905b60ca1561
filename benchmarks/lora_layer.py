"""How low-rank updates of in-layer experts are best computed: time and memory of a forward and backward pass.

    python benchmarks/lora_layer.py

Four ways through the same layers, each in a process of its own, single precision, one thread:

    full        no updates: all weights are trained
    made        W + s B A is made for the pass, and again in the backward pass (models/lora_layers.py)
    kept        the same, kept between the passes
    beside      B (A x) beside the frozen W x, one in-layer expert after the other: no W + s B A at all

    milliseconds   CPU time of one pass through all layers, least of the repetitions
    megabytes      largest resident memory above that of the layers and their input

Writes benchmarks/results/lora_layer.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from recording import machine, write_result
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.models.lora_layers import LoRAExperts, draw
from moe_trainer.moe.layer import InLayerExperts

WAYS = ("full", "made", "kept", "beside")
RANK = 16


@dataclass(frozen=True)
class Case:
    """The sizes of some equal layers and of what passes them."""

    layers: int
    experts: int
    hidden: int
    inner: int
    tokens: int
    active: int
    repetitions: int


CASES = {
    "preset": Case(layers=2, experts=8, hidden=128, inner=128, tokens=4096, active=2, repetitions=31),
    "larger": Case(layers=4, experts=32, hidden=512, inner=512, tokens=2048, active=4, repetitions=9),
}


class Beside(LoRAExperts):
    """The same function, with the updates' products beside those of the frozen weights."""

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted outputs of each token's in-layer experts."""
        y_ND = torch.zeros_like(x_ND)
        for expert in range(self.experts.get_parameter("down_EDF").shape[0]):
            token_S, slot_S = torch.where(experts_NK == expert)
            gate_SF, up_SF = self._product("gate_up_E2FD", expert, x_ND[token_S]).chunk(2, dim=1)
            out_SD = self._product("down_EDF", expert, F.silu(gate_SF) * up_SF)
            y_ND = y_ND.index_add(0, token_S, weights_NK[token_S, slot_S, None] * out_SD)
        return y_ND

    def _product(self, name: str, expert: int, x_SI: Tensor) -> Tensor:
        weight, update = self.experts.get_parameter(name), self.update(name)
        low_SR = x_SI @ update.a_RI[expert].T
        return x_SI @ weight[expert].T + self.scale * (low_SR @ update.b_OR[expert].T)


def main() -> None:
    """Measure every way through every case and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(CASES[arguments.one[0]], arguments.one[1])))
        return
    result: dict[str, Any] = {
        "machine": machine(),
        "loadBefore": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "rank": RANK,
    }
    for name, case in CASES.items():
        result[name] = asdict(case) | {way: _in_a_process(name, way) for way in WAYS}
        for way in WAYS:
            print(f"{name:8} {way:7}", "  ".join(f"{k} {v}" for k, v in result[name][way].items()))
    write_result("lora_layer", result)


def _in_a_process(case: str, way: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", case, way]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return measured


def measure(case: Case, way: str) -> dict[str, float]:
    """Pass forward and backward through all layers, several times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [layer(case, way) for _ in range(case.layers)]
    x_ND = torch.randn(case.tokens, case.hidden, requires_grad=True)
    experts_NK = torch.rand(case.tokens, case.experts).topk(case.active).indices
    weights_NK = torch.rand(case.tokens, case.active, requires_grad=True)
    before, times = _peak_megabytes(), []
    for _ in range(case.repetitions):
        started = time.process_time()
        y_ND = x_ND
        for one in layers:
            y_ND = y_ND + one(y_ND, experts_NK, weights_NK)
        y_ND.square().mean().backward()
        times.append(time.process_time() - started)
        for tensor in (x_ND, weights_NK, *(p for one in layers for p in one.parameters())):
            tensor.grad = None
    return {
        "milliseconds": round(1000 * min(times), 1),
        "megabytes": round(_peak_megabytes() - before),
    }


def layer(case: Case, way: str) -> nn.Module:
    """Return a layer's in-layer experts, to be trained in one of the ways."""
    experts = InLayerExperts(case.experts, case.hidden, case.inner)
    for weight in experts.parameters():
        nn.init.normal_(weight, 0, 0.02)
    if way == "full":
        return experts
    experts.requires_grad_(False)
    made = (
        Beside(experts, RANK, 2.0) if way == "beside" else LoRAExperts(experts, RANK, 2.0, keep=way == "kept")
    )
    with torch.no_grad():
        for name in made.updates:
            a_RI = made.update(name).a_RI
            a_RI.copy_(draw(a_RI.shape, torch.Generator().manual_seed(1)))
    return made


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
