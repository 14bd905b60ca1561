"""The mixture-of-experts layer; it imports torch, but nothing else of the trainer.

    layer.py             the module: router, in-layer experts, shared experts
    router.py            which in-layer experts a token uses, and with what weight
    routing.py           RouterConfig: how a router chooses; Routing: what it chose
    router_function.py   the router as one autograd function, however its passes are computed
    plain_router.py      the router in plain torch; triton/router.py and native/router.py compute the same
    capacity.py          which slots are dropped if the number of slots per in-layer expert is limited
    balance.py           how evenly slots are spread: counts of a step, load metrics, the selection bias
    experts.py           the in-layer experts: checks, the autograd function, and the formula as a loop
    backends.py          the backends by name, and which of them a call gets
    kernels.py           what a backend computes, and from what
    dispatch.py          the slots of a batch, ordered by in-layer expert
    looped.py            plain torch, one product per in-layer expert: CPUs, and every type       "torch"
    visits.py            the pieces in which looped.py visits the rows
    grouped.py           plain torch, grouped products: GPUs, without waiting for them            "torch"
    native/              looped.py with passes in C between the products: training on a CPU       "native"
    triton/              fused kernels for GPUs                                                   "triton"
    cuda/                kernels for Hopper in CUDA C++                                           "cuda"
    compiled.py          keeps compiled code on disk

Shapes, in every file: N tokens, D hidden, E in-layer experts, K active per token, F inner width,
S = N * K slots (a slot is one choice of one token), G groups of consecutive tokens (sequences).
"""
