"""Compiles what a call would launch, for a GPU that is not here.

The call is the production code's own, on torch's meta tensors: they have sizes, but no contents. So what is
compiled is what would run, with every configuration that would be tried; and a call that reads a tensor on
the host, which would stop a CUDA graph from being captured, is an error here.

A program, since a process that interprets kernels cannot compile them:

    python -m tests.trainer.moe.triton.offline CAPABILITY    prints a line of JSON for each call
    python -m tests.trainer.moe.triton.offline CAPABILITY --launches 7b-n256    those of one of the benchmark's shapes
    python -m tests.trainer.moe.triton.offline CAPABILITY --share 0/2    every second call, starting with the first
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

from moe_trainer.moe.triton import tiles

from .product_launches import BENCHMARK_LAUNCHES, PRODUCT_LAUNCHES
from .routing_launches import ROUTING_LAUNCHES

#: The name of the launches that the tests of this folder compile.
TESTS = "tests"
CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Compiled:
    """What became of one kernel in one configuration."""

    kernel: str
    configuration: str
    registers: int  #: Of a thread.
    stack: int  #: Bytes of a thread in local memory: what did not fit into registers.
    shared: int  #: Bytes of a block.
    multiplies: bool  #: Whether the source multiplies matrices (``tl.dot``).
    tensor_cores: str | None  #: The instruction by which it does: ``wgmma``, ``tcgen05`` or ``mma``.
    in_turn: bool  #: Whether each ``wgmma`` waits for the one before, as ptxas makes it where it must.


class _AbsentGPU:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def absent_gpu(capability: int) -> Iterator[list[Compiled]]:
    """Collect what is launched within, compiled for a capability (90 is Hopper) instead of run."""
    compiled: list[Compiled] = []
    run = JITFunction.run

    def compile_only(kernel: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {name: value for name, value in kwargs.items() if name.startswith("num_") or name.isupper()}
        compiled.append(_examined(run(kernel, *args, grid=grid, warmup=True, **kwargs), str(options)))

    def try_tile(launch: Callable[[], None]) -> float:
        launch()
        return 0.0

    driver.set_active(_AbsentGPU(capability))
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(tiles, "_milliseconds", try_tile),
        mock.patch.object(torch.cuda, "is_current_stream_capturing", lambda: False),
    ):
        yield compiled


def _examined(kernel: CompiledKernel, configuration: str) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        usage = _dumped("--dump-resource-usage", file.name)
        code = _dumped("--dump-sass", file.name) if "wgmma." in kernel.asm["ptx"] else ""
    registers, stack = (int(re.search(rf"\b{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
    found = re.search(r"\b(wgmma|tcgen05|mma)\.", kernel.asm["ptx"])
    return Compiled(
        kernel=kernel.src.name,
        configuration=configuration,
        registers=registers,
        stack=stack,
        shared=kernel.metadata.shared,
        multiplies="tt.dot" in kernel.asm["ttir"],
        tensor_cores=found[1] if found else None,
        in_turn=1 < code.count("HGMMA") <= code.count("WARPGROUP.ARRIVE"),
    )


def _dumped(what: str, cubin: str) -> str:
    done = subprocess.run([CUOBJDUMP, what, cubin], check=True, capture_output=True, text=True)
    return done.stdout


def main() -> None:
    """Compile what every listed call launches, and print what came of it, a line each, as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("capability", type=int)
    parser.add_argument("--launches", default=TESTS, choices=(TESTS, *BENCHMARK_LAUNCHES))
    parser.add_argument("--share", default="0/1", help="which of how many processes this one is")
    given = parser.parse_args()
    number, processes = map(int, given.share.split("/"))
    calls = {TESTS: ROUTING_LAUNCHES | PRODUCT_LAUNCHES, **BENCHMARK_LAUNCHES}[given.launches]
    for name, call in islice(calls.items(), number, None, processes):
        with absent_gpu(given.capability) as compiled:
            call()
        print(json.dumps({"call": name, "kernels": [asdict(kernel) for kernel in compiled]}), flush=True)


if __name__ == "__main__":
    main()
