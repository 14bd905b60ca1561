"""Every kernel, in every configuration that would be tried, compiles for Hopper and Blackwell without a GPU."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from .offline import Compiled
from .product_launches import PRODUCT_LAUNCHES
from .routing_launches import ROUTING_LAUNCHES

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
KERNELS = ROOT / "trainer" / "moe_trainer" / "moe" / "triton"
LAUNCHES = (*ROUTING_LAUNCHES, *PRODUCT_LAUNCHES)

#: What one block may use of an SM's shared memory, bytes: Hopper and data-centre Blackwell alike.
SHARED = 227 * 1024

#: The warp-group instruction that multiplies matrices, by capability.
TENSOR_CORES = {90: "wgmma", 100: "tcgen05"}


@cache
def compiled(capability: int) -> dict[str, list[Compiled]]:
    """Compile in a process that does not interpret: whether a kernel is interpreted is set when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    module = ".".join((*HERE.relative_to(ROOT).parts, "offline"))
    done = subprocess.run(
        [sys.executable, "-m", module, str(capability)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    return {call["call"]: [Compiled(**kernel) for kernel in call["kernels"]] for call in calls}


@pytest.fixture(params=[90, 100], ids=["sm_90", "sm_100"])
def capability(request: pytest.FixtureRequest) -> int:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("call", LAUNCHES)
def test_every_kernel_compiles_within_the_registers_and_shared_memory_of_a_block(
    call: str, capability: int
) -> None:
    kernels = compiled(capability)[call]
    assert kernels
    for kernel in kernels:
        assert kernel.stack == 0, f"registers spill: {kernel}"
        assert kernel.shared <= SHARED, kernel


@pytest.mark.parametrize("call", LAUNCHES)
def test_matrices_are_multiplied_on_tensor_cores(call: str, capability: int) -> None:
    for kernel in compiled(capability)[call]:
        assert not kernel.multiplies or kernel.tensor_cores == TENSOR_CORES[capability], kernel


def test_no_constant_of_a_kernel_is_the_result_of_a_triton_function() -> None:
    # Triton 3.6, which accelerators' images have, does not take that for a constant; benchmarks/compile_kernels.py
    # compiles with every version.
    for file in sorted(KERNELS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.AnnAssign) and "constexpr" in ast.unparse(node.annotation):
                called = [ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)]
                assert not any(name.startswith(("tl.", "triton.")) for name in called), (
                    f"{file.name}: {node.lineno}"
                )


@pytest.mark.parametrize("call", LAUNCHES)
def test_multiplications_do_not_wait_for_each_other(call: str) -> None:
    assert not any(kernel.in_turn for kernel in compiled(90)[call])
