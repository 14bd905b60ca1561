"""The in-layer experts in Triton: one kernel per product, made for NVIDIA's Hopper and Blackwell GPUs.

    kernels.py     TritonKernels: the steps of both passes, in order
    dispatch.py    orders the slots by in-layer expert
    up.py          forward    h = W_gate_up x, a = silu(g) * u
    product.py     forward    W_down a                backward   W_gate_up^T dh
    combine.py     adds up the rows of each token's slots
    d_hidden.py    backward   dh, the gradient of the slots' weights, s * a
    d_weights.py   backward   the gradients of W_down and W_gate_up
    skinny.py      the forward pass for few tokens, limited only by reading the weights
    router.py      the router in one pass over the logits
    router_gradient.py   the router's backward pass
    tiles.py       how the products are cut, and how a program finds its tile without the host

Importing this package does not import Triton, which torch installs only where it can run.
"""

from importlib.util import find_spec

import torch

from moe_trainer.moe.kernels import Case
from moe_trainer.moe.router_function import RouterCase

#: Major compute capabilities; the tiles are made for their tensor cores, copy engine and shared memory.
CAPABILITIES = (9, 10)
DTYPES = (torch.bfloat16, torch.float16)


def refusal(case: Case) -> str | None:
    """Return why these kernels cannot run a case and what to do instead, or None if they can."""
    if case.device != "cuda":
        return f"it needs a CUDA device, and the tensors are on {case.device!r}: use backend 'torch'"
    if find_spec("triton") is None:
        return "the Python package triton is not installed: install it, or use backend 'torch'"
    major, minor = case.capability
    if major not in CAPABILITIES:
        return f"it needs compute capability 9.x or 10.x, and this device has {major}.{minor}: use backend 'torch'"
    if case.dtype not in DTYPES:
        # Tensor cores would round fp32 to tf32.
        return (
            f"it computes in bfloat16 or float16, not {case.dtype}: convert the layer, or use backend 'torch'"
        )
    for name, size in (("hidden", case.hidden), ("inner", case.inner)):
        if size % 16:
            return f"it needs sizes that are multiples of 16, and {name} is {size}: use backend 'torch'"
    return None


def suits_router(case: RouterCase) -> bool:
    """Return whether the fused router computes a case: on any CUDA device, in fp32 from logits of any narrower type."""
    return case.device == "cuda" and case.dtype != torch.float64 and find_spec("triton") is not None
