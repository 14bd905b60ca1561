"""Gathers the tensors of a spread model in the first process, one after the other.

Each tensor is sent only to that process and through the memory of the hosts. So writing costs the first process the
memory of one tensor besides its own part, and costs the other processes and all devices nothing.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from moe_trainer.parallel.processes import Processes
from moe_trainer.parallel.spread import holders, local, placed
from moe_trainer.weights.writing import TensorStream


def gathered(stream: TensorStream, model: nn.Module, processes: Processes) -> TensorStream:
    """Return a stream that makes each of a model's tensors whole in the first process when its turn comes.

    All processes go through it together: the first one uses the tensors, the others take part in gathering them.
    """
    tensors = {name: tensor for group in stream.groups for name, tensor in group.items()}
    places = placed(tensors, model, processes)
    return replace(
        stream,
        groups=[{name: places[name] for name in group} for group in stream.groups],
        whole=partial(_to_first, processes),
    )


def _to_first(processes: Processes, tensor: Tensor) -> Tensor:
    """Return the whole tensor in the first process; the others send their parts to it."""
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
