"""The steps of benchmarks/first_device.sh that are not commands of their own.

    python benchmarks/moe_bench/first_device.py packages | compile | smoke | tests BACKEND PYTEST-ARGUMENT...

Exits with 0 if the step was done, with 3 if it ended where a device is needed and there is none, and with 1 if it failed.
"""

import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

#: What must be there: the module, and what to install if it is missing.
NEEDED = {
    "torch": "torch 2.11 or newer, built for CUDA",
    "triton": "triton",
    "cuda.bindings": "cuda-bindings",
    "cuda.bindings.nvrtc": "cuda-bindings",
    "numpy": "numpy",
    "pytest": "pytest",
}
NO_DEVICE = 3


def main() -> int:
    """Run one step and return its exit status."""
    step, *arguments = sys.argv[1:]
    return {"packages": packages, "compile": compile_kernels, "smoke": smoke, "tests": tests}[step](
        *arguments
    )


def packages() -> int:
    """Print versions and the device."""
    missing = [name for module, name in NEEDED.items() if not found(module)]
    for name in ("torch", "triton", "cuda-bindings", "numpy", "pytest", "nvidia-cuda-nvrtc"):
        print(f"{name} {installed(name)}")
    if missing:
        print(f"missing: {', '.join(sorted(set(missing)))}")
        return 1
    import torch

    print(f"torch is built for CUDA {torch.version.cuda}")
    return device()


def device() -> int:
    """Print which device there is; return 3 if there is none."""
    import torch

    if not torch.cuda.is_available():
        print("torch finds no CUDA device here")
        return NO_DEVICE
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    print(f"{properties.name}, compute capability {properties.major}.{properties.minor}, {memory:.0f} GiB")
    return 0


def compile_kernels() -> int:
    """Compile every CUDA kernel; print its registers. Needs no device."""
    from moe_trainer.moe.cuda.compile import KERNELS, compile_kernel

    for kernel in KERNELS:
        began = time.monotonic()
        log = compile_kernel(kernel).log
        spills = "no spills" if " 0 bytes spill stores" in log else "SPILLS, see the log"
        print(
            f"{kernel.name}, cluster of {kernel.cluster}: {time.monotonic() - began:.1f} s, {spills}\n{log}"
        )
    print(f"{len(KERNELS)} kernels compiled")
    return 0


def smoke() -> int:
    """Run both passes of the cuda backend on a small batch, and compare them with the reference in fp64."""
    import torch

    from moe_trainer.moe.experts import swiglu_experts

    if device():
        return NO_DEVICE
    torch.manual_seed(0)
    tokens, hidden, inner, experts, active = 333, 128, 64, 16, 4
    leaves = [
        torch.randn(tokens, hidden),
        torch.rand(tokens, active),
        torch.randn(experts, 2 * inner, hidden) / hidden**0.5,
        torch.randn(experts, hidden, inner) / inner**0.5,
    ]
    chosen_NK = torch.rand(tokens, experts).topk(active).indices.cuda()
    dy_ND = torch.randn(tokens, hidden)
    results = []
    for backend, dtype in (("cuda", torch.bfloat16), ("reference", torch.float64)):
        x, weights, gate_up, down = (
            leaf.bfloat16().to("cuda", dtype).detach().requires_grad_() for leaf in leaves
        )
        y = swiglu_experts(x, chosen_NK, weights, gate_up, down, backend=backend)
        results.append([y, *torch.autograd.grad(y, [x, weights, gate_up, down], dy_ND.to("cuda", dtype))])
        torch.cuda.synchronize()
    worst = 0.0
    for name, ours, right in zip(("y", "dx", "dweights", "dgate_up", "ddown"), *results, strict=True):
        error = float((ours.double() - right).norm() / right.norm())
        print(f"{name}: relative error {error:.2e}")
        worst = max(worst, error)
    print("as exact as bf16 allows" if worst < 1e-2 else "WRONG")
    return int(not worst < 1e-2)


class OfBackend:
    """Keeps the tests of one backend; those that are about no backend run with Triton's, whose kernels they need."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave the others out."""
        items[:] = [item for item in items if self._backend(item) == self.backend]

    @staticmethod
    def _backend(item: Any) -> Any:
        return item.callspec.params.get("backend", "triton") if hasattr(item, "callspec") else "triton"


def tests(backend: str, *arguments: str) -> int:
    """Run the GPU tests of one backend in this process."""
    import pytest

    status = int(pytest.main(list(arguments), plugins=[OfBackend(backend)]))
    return status or device()


def found(module: str) -> bool:
    """Return whether a module is there."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def installed(package: str) -> str:
    """Return the version of a package, or that it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed as a package"


if __name__ == "__main__":
    sys.exit(main())
