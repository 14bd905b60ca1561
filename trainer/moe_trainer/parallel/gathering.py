"""The tensors of a spread model come whole to the first process, one after the other.

Each of them travels to that process alone and through the memory of the hosts. So writing costs it one tensor beside its
own part, and the others and all devices nothing.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from moe_trainer.parallel.processes import Processes
from moe_trainer.parallel.spread import holders, local, placed
from moe_trainer.weights.writing import TensorStream


def gathered(stream: TensorStream, model: nn.Module, processes: Processes) -> TensorStream:
    """Return a stream of a model's tensors that has each of them whole, in the first process, when its turn comes.

    All processes go through it together: the first one uses what comes, the others take part.
    """
    tensors = {name: tensor for group in stream.groups for name, tensor in group.items()}
    places = placed(tensors, model, processes)
    return replace(
        stream,
        groups=[{name: places[name] for name in group} for group in stream.groups],
        whole=partial(_to_first, processes),
    )


def _to_first(processes: Processes, tensor: Tensor) -> Tensor:
    """Return all of a tensor in the first process; the others send what they hold of it."""
    part = local(tensor)
    if part is tensor:
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    rows = holders(tensor)
    if not processes.first:
        if processes.rank in rows and len(part):
            torch.distributed.send(part.to("cpu").contiguous(), 0)
        return part
    whole = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    for rank, theirs in rows.items():
        if rank == processes.rank:
            whole[theirs] = part.to("cpu")
        elif theirs.start < theirs.stop:
            torch.distributed.recv(whole[theirs], rank)
    return whole
