"""The processes of a run: they join, sum, agree and part.

A run in one process executes the same code, with sums of one term; torch.distributed is not imported for it.
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

#: A process that has waited this long for the others ends, since one of them must be gone or hang.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them; by default it is alone."""

    layout: Layout = field(default_factory=Layout)
    rank: int = 0
    grid: "DeviceMesh | None" = None  #: The processes by the dimensions ``expert`` and ``data``; None: alone.
    #: All processes, in a second group over Gloo, on which a background thread may wait while steps go on.
    background: "ProcessGroup | None" = None

    @property
    def alone(self) -> bool:
        """Whether the run has only one process."""
        return self.layout.processes == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that logs, reports and commits."""
        return self.rank == 0

    @property
    def expert_group(self) -> "ProcessGroup | None":
        """The processes that together hold one copy of the in-layer experts; None: this one holds them all."""
        return self.grid["expert"].get_group() if self.grid and self.layout.expert > 1 else None

    @property
    def data_group(self) -> "ProcessGroup | None":
        """The processes that hold the same in-layer experts as this one; None: there is no other."""
        return self.grid["data"].get_group() if self.grid and self.layout.data > 1 else None

    @property
    def everyone(self) -> "ProcessGroup | None":
        """All processes; None: alone."""
        return None if self.alone else torch.distributed.group.WORLD

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place; all get the same bits."""
        if not self.alone:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process; all get the same answer."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def from_first(self, value: T, group: "ProcessGroup | None" = None) -> T:
        """Return the value that the first process passed; the others may pass anything."""
        if self.alone:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=group)
        return box[0]

    def share(self) -> slice:
        """Return which items of a list this process takes when all processes share some work."""
        return slice(self.rank, None, self.layout.processes)

    def together(self, work: Callable[[], T]) -> T:
        """Do this process's share of some work and return the result; a JobError in any process is raised in all of them."""
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
    """Join the other processes of the run, by the variables that torchrun sets, and part at the end.

    It uses NCCL if each process has a device of its own, else Gloo. Raises TransientError (PeerLost) if not all
    processes join, or one is lost later: the others only notice its absence, and the lost one has reported why.
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
                "another process of this run has ended or does not answer, so this one ends as well; the next attempt "
                f"resumes from the last checkpoint. The other process says why in its own log; here the error is: {error}",
            ) from error
        raise
    # Not after an error: the others may be gone, and this process is about to end.
    dist.destroy_process_group()


#: The first process tells the others at this interval that it is still working.
ALIVE_SECONDS = 30.0


def first_alone(processes: Processes, work: Callable[[Callable[[], None]], T]) -> T | None:
    """Let the first process alone do some work; it gets the result, and the others get None when the work is done.

    The others wait as long as the first one is alive, and not only for PATIENCE. To show that it is, the work must call
    the function that it is given again and again, at intervals shorter than PATIENCE. From the first call on the
    processes may not exchange anything else.
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
