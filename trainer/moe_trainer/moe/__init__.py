"""The mixture-of-experts layer.

    layer.py       the module: router, in-layer experts, shared experts
    router.py      which in-layer experts a token uses, and with what weight        -> Routing
    router_config.py, router_function.py   how it chooses; its autograd function, for either way to compute it
    plain_router.py  in plain torch, for CPUs and fp64; triton/router.py is the fused one
    capacity.py    which slots are dropped when an in-layer expert takes only so many
    balance.py     how evenly slots are spread: counts of a step, load metrics, the moving bias
    routing.py     Routing: what the layer, the losses and the load metrics read
    experts.py     the in-layer experts' products: checks, choice of a backend, one autograd function
    dispatch.py    the slots of a batch, ordered by in-layer expert
    kernels.py     what a backend computes: Kernels; Case: what it is asked for
    backends.py    the backends by name, and which one is chosen
    reference.py   the formula as it reads: a loop; every backend is tested against it
    looped.py      plain torch, one product per in-layer expert: CPUs, and every type    "torch"
    skinny.py      plain torch, few slots on a CPU: decoding
    grouped.py     plain torch, grouped products: GPUs, without waiting for them      "torch"
    native/        looped.py with passes in C between the products, for training on a CPU     "native"
    triton/        fused kernels for GPUs                                             "triton"
    cuda/          kernels for Hopper in CUDA C++                                     "cuda"
    compiled.py    compiled code, kept on disk

Shapes, in every file: N tokens, D hidden, E in-layer experts, K active per token, F inner width,
S = N * K slots (a slot is one choice of one token), G groups of consecutive tokens (sequences).
"""
