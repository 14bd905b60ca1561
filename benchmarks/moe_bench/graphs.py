"""A layer captured in a CUDA graph."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from moe_bench.cases import Batch
from moe_bench.layers import Layer

#: Bytes that are allocated and freed to see whether the allocator still works.
PROBE_BYTES = 4 << 20


def check_allocator(allocated: int) -> None:
    """Raise RuntimeError if a capture that failed has spoiled torch's allocator for what is measured next.

    ``allocated`` is what was allocated before the capture, in bytes. A failed capture can leave the stream capturing,
    and what it allocated in a pool that nobody frees.
    """
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "the failed capture of a graph goes on: nothing can be measured in this process any more"
        )
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    if before > allocated:
        raise RuntimeError(f"the failed capture of a graph left {before - allocated} bytes allocated")
    probe = torch.empty(PROBE_BYTES, dtype=torch.uint8, device="cuda")
    grown = torch.cuda.memory_allocated() - before
    del probe
    left = torch.cuda.memory_allocated() - before
    if grown < PROBE_BYTES or left:
        raise RuntimeError(
            f"after the failed capture of a graph, {PROBE_BYTES} bytes counted as {grown} while they were allocated, and "
            f"as {left} when they were freed"
        )


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
