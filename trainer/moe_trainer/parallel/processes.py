"""The processes of a run: they join, sum, agree, and part.

A run in one process is the same code with sums of one term; nothing of torch.distributed is imported for it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from moe_formats.failure import PEER_LOST, JobError, TransientError
from moe_trainer.parallel.layout import Layout

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")

#: A process that waits this long for the others ends: one of them is gone or hangs.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """One process among those of the run, as it sees itself; by default it is alone."""

    layout: Layout = field(default_factory=Layout)
    rank: int = 0
    grid: "DeviceMesh | None" = None  #: Dimensions ``expert`` and ``data``; None: alone.
    #: All processes, once more over Gloo: what a background thread may wait on while steps go on.
    background: "ProcessGroup | None" = None

    @property
    def alone(self) -> bool:
        """Whether the run has one process."""
        return self.layout.processes == 1

    @property
    def first(self) -> bool:
        """Whether this process speaks for all: it logs, reports and commits."""
        return self.rank == 0

    @property
    def expert_group(self) -> "ProcessGroup | None":
        """The processes that hold one copy of the in-layer experts between them; None: this one has all."""
        return self.grid["expert"].get_group() if self.grid and self.layout.expert > 1 else None

    @property
    def data_group(self) -> "ProcessGroup | None":
        """The processes that hold the same in-layer experts as this one; None: no other does."""
        return self.grid["data"].get_group() if self.grid and self.layout.data > 1 else None

    @property
    def everyone(self) -> "ProcessGroup | None":
        """All processes; None: alone."""
        return None if self.alone else torch.distributed.group.WORLD

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; each of them gets the same bits."""
        if not self.alone:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is up in any process: how they agree on stopping."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def from_first(self, value: T, group: "ProcessGroup | None" = None) -> T:
        """Return what the first process passed; the others may pass anything."""
        if self.alone:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=group)
        return box[0]

    def share(self) -> slice:
        """Return which items of a list this process takes where all of them share some work."""
        return slice(self.rank, None, self.layout.processes)

    def together(self, work: Callable[[], T]) -> T:
        """Return what some work makes of this process's share; a JobError of any process is raised by all."""
        if self.alone:
            return work()
        made, failure = None, None
        try:
            made = work()
        except JobError as error:
            failure = (type(error), error.reason, error.message)
        failures: list[tuple[type[JobError], str, str] | None] = [None] * self.layout.processes
        torch.distributed.all_gather_object(failures, failure)
        for kind, reason, message in filter(None, failures):
            raise kind(reason, message)
        assert made is not None
        return made


ALONE = Processes()


@contextmanager
def joined(layout: Layout, variables: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Meet the other processes of the run, by the variables that torchrun sets, and part at the end.

    NCCL where each process has a device of its own, else Gloo. Raises TransientError (PeerLost) if they do
    not all come, or one of them is lost on the way: the others only notice, and whoever was first has said why.
    """
    if layout.processes == 1:
        yield ALONE
        return
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(variables["LOCAL_RANK"]))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        ranks = torch.arange(layout.processes, device="cpu").view(layout.data, layout.expert)
        grid = DeviceMesh("cuda" if cuda else "cpu", ranks.T, mesh_dim_names=("expert", "data"))
        background = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Processes(layout, dist.get_rank(), grid, background)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise TransientError(
                PEER_LOST,
                "another process of this run is gone or does not answer, so this one ends as well; the next attempt "
                f"goes on from the last checkpoint. Its own message says why; here it shows as: {error}",
            ) from error
        raise
    # Not after an error: the others may be gone, and this process is about to end.
    dist.destroy_process_group()


#: The first process tells the others this often that it is still at work.
ALIVE_SECONDS = 30.0


def first_alone(processes: Processes, work: Callable[[Callable[[], None]], T]) -> T | None:
    """Return in the first process what its work returns; the others get None, when it is done.

    The work is given what it calls again and again: one call must follow another within PATIENCE, and nothing
    else may be exchanged between the processes from the first call on.
    """
    if not processes.first:
        while processes.from_first(True):
            pass
        return None
    made = work(_Heartbeat(processes))
    processes.from_first(False)
    return made


class _Heartbeat:
    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > ALIVE_SECONDS:
            self._processes.from_first(True)
            self._last = time.monotonic()
