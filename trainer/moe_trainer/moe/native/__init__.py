"""For training on a CPU: the passes between the products in C, compiled on the machine that runs them.

    swiglu.c      the activation and its gradients, each in one pass over memory
    dispatch.c    the order of the slots
    router.c      the router's two passes, each in one pass over the logits
    exponential.h the exponential function and the sigmoid, in a form that compilers vectorize
    library.py    compiles them for this machine, once, and loads them
    kernels.py    NativeKernels: moe/looped.py with these passes
    router.py     the router with its passes in C

torch needs seven passes for what one pass does here, and a pass over data that is no longer in the cache takes a good
part of the time of a product. Without a C compiler, as in the trainer's image, the loop uses torch's passes.
"""

import torch

from moe_trainer.moe.kernels import Case
from moe_trainer.moe.native import library
from moe_trainer.moe.router_function import RouterCase

#: With more threads torch is faster: it shares its passes among them, while those here use one thread.
THREADS = 2


def refusal(case: Case) -> str | None:
    """Return why these passes cannot be used for a case and what to do instead, or None if they can."""
    elsewhere = "use backend 'torch'"
    if case.device != "cpu":
        return f"it is for CPUs, and x is on {case.device!r}: use backend 'triton' or 'torch'"
    if case.dtype != torch.float32:
        return f"it computes in torch.float32, and x is {case.dtype}: convert the layer, or {elsewhere}"
    if torch.get_num_threads() > THREADS:
        return f"it is slower than torch with more than {THREADS} threads, and there are {torch.get_num_threads()}: {elsewhere}"
    reason = library.unavailable()  # checked last, so that nothing is compiled that could not be used
    return None if reason is None else f"{reason}: {elsewhere}"


def suits_router(case: RouterCase) -> bool:
    """Return whether a router can be computed here: in fp32, with a backward pass, without groups of experts."""
    return (
        case.gradients
        and case.device == "cpu"
        and case.dtype == torch.float32
        and case.config.chosen_groups == case.config.expert_groups
        and torch.get_num_threads() <= THREADS
        and library.unavailable() is None
    )
