"""Training in several processes.

    layout.py         how many processes there are, and what each of them holds; imports no torch
    processes.py      the processes of a run: they join, agree and sum
    spread.py         a model over the processes: slices of in-layer experts, FSDP2 or replicas
    exchange.py       expert parallelism: slots travel to the process that holds their in-layer expert
    filling.py        weights that are read after the model is spread: each process reads its rows
    gathering.py      tensors made whole again, one by one, in the process that writes them
    tensor_files.py   tensors of a checkpoint, which each process writes and reads in part

W processes form a grid of D * X. X, the expert parallelism, is the number of processes over which the in-layer
experts of a layer are cut. D = W / X, the data parallelism, is the number of copies of each of them. Every process
reads its own share of the batch, so W shares make a step.

Losses are sums over a process's own tokens, divided by the number of tokens of the whole step, and gradients are
summed. So a step means the same for any W, even where the shares differ in size.
"""
