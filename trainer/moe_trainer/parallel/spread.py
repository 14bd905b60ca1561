"""A model over the processes of a run.

In-layer experts are first cut over the processes of an expert group. Everything else, and each process's in-layer
experts, is either held whole by every process that uses it (replicas, with one sum of all gradients per step) or, in
large models, cut again by FSDP2.

    spread(model, processes)             before the first step; weights may be filled in later (filling.py)
    sum_gradients(model, processes)      after the last backward pass of a step
    clip_gradients(model, limit, …)      by the norm over the whole model
    placed(tensors, model, processes)    this process's part of each tensor, with its place in the whole
    held_rows(tensor), holders(tensor)   which rows of a tensor this process holds, and which each process holds
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from moe_formats.failure import JobError
from moe_trainer.models.bank_layers import BankedExperts
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.in_layer import holds_in_layer_experts
from moe_trainer.models.lora_layers import LoRAExperts
from moe_trainer.parallel.processes import Processes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

#: Models with more bytes than this are cut by FSDP2. Smaller ones fit into every process as a replica, and one sum of
#: all gradients is faster than gathering parameters block by block.
REPLICATED_BYTES = 256 << 20


def spread(model: CausalModel, processes: Processes, shard: bool | None = None) -> None:
    """Reduce the model to this process's part; ``shard`` forces FSDP2 (True) or replicas (False)."""
    if processes.alone:
        return
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if processes.layout.expert > 1:
        if model.backend(1) is None:
            raise JobError(
                "InvalidConfig",
                f"training.resources.expertParallelism is {processes.layout.expert}, but "
                "in-layer experts can be cut over processes only if the trainer's own layer computes them and their "
                "routers are of a known kind, which is not so for this base: set it to 1, so that the processes share "
                "only the batch.",
            )
        for experts in _in_layer_experts(model):
            _cut(experts, processes)
    if shard if shard is not None else size > REPLICATED_BYTES:
        _fully_shard(model, processes)


def sum_gradients(model: nn.Module, processes: Processes) -> None:
    """Sum the gradients of replicas, so that each has those of the whole step; FSDP2 does this by itself."""
    if processes.alone:
        return
    cut = _cut_ids(model, processes)
    replicas = [p for p in model.parameters() if p.grad is not None and local(p) is p]
    _sum_together([p.grad for p in replicas if p.grad is not None and id(p) not in cut], None)
    if processes.data_group is not None:
        inner = [p.grad for p in replicas if p.grad is not None and id(p) in cut]
        _sum_together(inner, processes.data_group)


def clip_gradients(model: nn.Module, limit: float, processes: Processes) -> float:
    """Scale all gradients so that their norm over the whole model is at most ``limit``; return the norm before.

    If the norm is not finite, the gradients stay as they are.
    """
    cut = _cut_ids(model, processes)
    if not cut and all(local(parameter) is parameter for parameter in model.parameters()):
        # Each process has all gradients with the same bits, so nothing has to be exchanged.
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        found = torch.nn.utils.get_total_norm(gradients)
        if found.isfinite():
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, found)
        return float(found)
    squares = torch.zeros((), dtype=torch.float64)
    for parameter in model.parameters():
        if parameter.grad is not None:
            square = local(parameter.grad).double().square().sum()
            squares += square / _copies(parameter, id(parameter) in cut, processes)
    norm = math.sqrt(float(processes.sum(squares)))
    if limit < norm < math.inf:
        for parameter in model.parameters():
            if parameter.grad is not None:
                local(parameter.grad).mul_(limit / (norm + 1e-6))
    return norm


def placed(tensors: Mapping[str, Tensor], model: nn.Module, processes: Processes) -> dict[str, Tensor]:
    """Return parameters as this process holds them: plain tensors where whole, else DTensors that know the whole."""
    cut = _cut_ids(model, processes)
    return {
        name: _cut_part(tensor.detach(), processes) if id(tensor) in cut else tensor.detach()
        for name, tensor in tensors.items()
    }


def placed_like(whole: Tensor, part: Tensor) -> Tensor:
    """Return a part of a tensor that is cut like ``whole``, such as an optimizer's moment, as a DTensor like it."""
    if local(whole) is whole:
        return part
    from torch.distributed.tensor import DTensor

    assert isinstance(whole, DTensor)
    return DTensor.from_local(
        part,
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a parameter or gradient, as a plain tensor that shares its memory."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def _in_layer_experts(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that hold the in-layer experts to be cut, with their low-rank updates if there are any.

    Those of a bank are few, and their number need not be divisible: they are treated like all other weights.
    """
    updated = [module for module in model.modules() if isinstance(module, LoRAExperts)]
    banks = [module.bank for module in model.modules() if isinstance(module, BankedExperts)]
    apart = {id(module.experts) for module in updated} | {id(bank) for bank in banks}
    plain = filter(holds_in_layer_experts, model.modules())
    yield from updated
    yield from (module for module in plain if id(module) not in apart)


def _cut_ids(model: nn.Module, processes: Processes) -> set[int]:
    """Return the ids of the parameters of in-layer experts that are cut over an expert group."""
    if processes.expert_group is None:
        return set()
    return {id(p) for experts in _in_layer_experts(model) for p in experts.parameters()}


def _cut(experts: nn.Module, processes: Processes) -> None:
    """Keep only this process's in-layer experts, and let the module exchange slots with the other processes."""
    from moe_trainer.parallel.exchange import exchanged_experts

    assert processes.grid is not None and processes.expert_group is not None
    place = processes.grid["expert"].get_local_rank()
    for module in experts.modules():  # low-rank updates are stacked like the weights
        for name, parameter in list(module.named_parameters(recurse=False)):
            kept = parameter.detach().chunk(processes.layout.expert)[place].clone()
            setattr(module, name, nn.Parameter(kept, requires_grad=parameter.requires_grad))
        if holds_in_layer_experts(module):
            module.function = partial(  # type: ignore[assignment]  # an attribute, no submodule
                exchanged_experts, group=processes.expert_group
            )


def _cut_part(part: Tensor, processes: Processes) -> Tensor:
    """Return a process's part of the in-layer experts as a DTensor of all of them: cut by expert, then by FSDP2."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    held = part.shape[0]  # by this process of the expert group, over all its data replicas
    whole = torch.empty(held * processes.layout.expert, *part.shape[1:], device="meta")
    rest = Shard(0) if isinstance(part, DTensor) else Replicate()
    assert processes.grid is not None
    return DTensor.from_local(
        local(part),
        processes.grid,
        [Shard(0), rest],
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def _fully_shard(model: CausalModel, processes: Processes) -> None:
    """Cut parameters, gradients and optimizer state by FSDP2, block by block; gradients are summed."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    assert processes.grid is not None
    device = processes.grid.device_type
    everyone = DeviceMesh(device, torch.arange(processes.layout.processes, device="cpu"))
    if processes.layout.expert > 1:
        for experts in _in_layer_experts(model):
            fully_shard(experts, mesh=processes.grid["data"])
    for block in model.blocks:
        fully_shard(block, mesh=everyone)
    # Cut again after every pass, so that between passes a parameter is always this process's part.
    fully_shard(model, mesh=everyone, reshard_after_forward=True)
    register_fsdp_forward_method(model, "with_routing")
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _copies(parameter: nn.Parameter, in_layer: bool, processes: Processes) -> int:
    """Return how many processes hold this part of the parameter."""
    if local(parameter) is not parameter:
        return 1
    return processes.layout.data if in_layer else processes.layout.processes


def _sum_together(gradients: list[Tensor], group: "torch.distributed.ProcessGroup | None") -> None:
    """Sum gradients over a group in one exchange."""
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat, group=group)
    for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def held_rows(tensor: Tensor) -> slice:
    """Return which rows of the whole this process holds; all of them if the tensor is not spread."""
    if local(tensor) is tensor:
        return slice(0, tensor.shape[0] if tensor.dim() else 1)
    spread: DTensor = tensor  # type: ignore[assignment]
    coordinate = spread.device_mesh.get_coordinate()
    assert coordinate is not None, "this process is outside of the tensor's mesh"
    return _rows_at(spread, tuple(coordinate))


def holders(tensor: "DTensor") -> dict[int, slice]:
    """Return the ranks that together hold a spread tensor, each with its rows; of replicas only the first."""
    ranks = tensor.device_mesh.mesh
    return {
        int(ranks[coordinate]): _rows_at(tensor, coordinate)
        for coordinate in product(*map(range, ranks.shape))
        if all(
            place.is_shard() or not number
            for place, number in zip(tensor.placements, coordinate, strict=True)
        )
    }


def _rows_at(tensor: "DTensor", coordinate: tuple[int, ...]) -> slice:
    """Return the rows of the process at a place of the mesh; each sharded dimension of the mesh cuts them once more."""
    rows = range(tensor.shape[0])
    for place, parts, number in zip(tensor.placements, tensor.device_mesh.shape, coordinate, strict=True):
        if place.is_shard():
            step = -(-len(rows) // parts)  # as torch.chunk: the last may be shorter, or empty
            rows = rows[number * step : (number + 1) * step]
    return slice(rows.start, rows.stop)
