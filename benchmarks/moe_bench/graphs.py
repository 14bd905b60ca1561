"""A layer captured in a CUDA graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from moe_bench.cases import Batch
from moe_bench.layers import Layer


class Graph:
    """A layer's step in a CUDA graph, with an input that batches are copied into before a replay.

    Graphs that share a pool share the memory of their intermediate results; nothing of one is read after
    the replay of another.
    """

    def __init__(self, layer: Layer, batches: Sequence[Batch], backward: bool, pool: Any) -> None:
        self.batches = batches
        self.x_ND = batches[0].x_ND.detach().clone().requires_grad_(backward)
        self.dy_ND = batches[0].dy_ND.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run(layer, backward)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self._run(layer, backward)

    def replay(self, number: int, lap: Callable[[], None]) -> None:
        """Replay on a batch, copied into the input before the clock starts: a step of timing.py."""
        with torch.no_grad():
            self.x_ND.copy_(self.batches[number].x_ND)
            self.dy_ND.copy_(self.batches[number].dy_ND)
        lap()
        self.graph.replay()
        lap()

    def _run(self, layer: Layer, backward: bool) -> None:
        if backward:
            torch.autograd.grad(layer(self.x_ND), [self.x_ND, *layer.leaves()], self.dy_ND)
        else:
            with torch.no_grad():
                layer(self.x_ND)
