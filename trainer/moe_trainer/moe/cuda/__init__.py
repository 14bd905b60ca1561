"""Kernels for Hopper in CUDA C++, for the three products with the heaviest epilogues: up, down, d_hidden.

    source/ptx.cuh        the instructions of sm_90a that the kernels use, one function each
    source/tiles.cuh      which tile of which in-layer expert a thread block computes next
    source/pipeline.cuh   one producer and two consumer warpgroups around a ring of stages
    source/fragment.cuh   the layout of the sums in registers, and how they are stored to memory
    source/{up,down,d_hidden}.cu
    compile.py            NVRTC, and the compiled kernels kept on disk
    launch.py             tensor maps and arguments for the driver
    products.py           the three products as functions of tensors
    kernels.py            CudaKernels: these products, and the Triton kernels for everything else

NVRTC and the driver's bindings come with torch's build for CUDA, so neither nvcc nor a C++ compiler is needed.

State: every kernel has been compiled for sm_90a, and its source has been run on a CPU with emulated instructions
(tests/trainer/moe/cuda), where output and gradients were compared with the reference. None has run on a GPU yet, so the
backend is used only if it is asked for by name.
"""

from importlib.util import find_spec

import torch

from moe_trainer.moe.kernels import Case

#: D and F must be multiples of this: the depth of one step of the pipeline, 128 bytes of bf16.
STEP = 64


def refusal(case: Case) -> str | None:
    """Return why these kernels cannot run a case and what to do instead, or None if they can."""
    elsewhere = "use backend 'triton' or 'torch'"
    if case.device != "cuda":
        return f"it needs a CUDA device, and x is on {case.device!r}: move the layer to a GPU, or use backend 'torch'"
    if case.capability != (9, 0):
        found = ".".join(map(str, case.capability))
        return f"its kernels are for compute capability 9.0 (Hopper), and this GPU has {found}: {elsewhere}"
    if case.dtype != torch.bfloat16:
        return f"it computes in torch.bfloat16, and x is {case.dtype}: convert the layer, or {elsewhere}"
    for name, size in (("hidden size", case.hidden), ("inner width", case.inner)):
        if size % STEP:
            return (
                f"its steps are {STEP} deep, and the {name} {size} is not a multiple of {STEP}: {elsewhere}"
            )
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return f"the package cuda-bindings is missing (it comes with torch's build for CUDA): install it, or {elsewhere}"
    return None
