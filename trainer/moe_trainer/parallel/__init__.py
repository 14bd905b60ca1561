"""Training in several processes.

    layout.py      how many processes, and what each of them holds       (pure; no torch)
    processes.py   the processes of a run: joining, agreeing, summing
    exchange.py    expert parallelism: slots travel to the process that holds their in-layer expert
    spread.py      a model over the processes: slices of in-layer experts, FSDP2 or replicas
    rows.py        which rows of a tensor each process holds
    filling.py     weights that are read when the model is spread: each process its rows
    gathering.py   tensors whole again, one after the other, in the process that writes them

W processes form a grid of D * X: X, the expert parallelism, says over how many processes the in-layer
experts of a layer are cut; D = W / X, the data parallelism, counts how often each of them exists. Every
process reads its own share of the batch, so W shares make a step.

Losses are sums over a process's own tokens, divided by the tokens of the whole step, and gradients are
summed: so a step means the same at any W, also where the shares are not of one size.
"""
