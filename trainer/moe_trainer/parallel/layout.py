"""How the processes of a run are laid out. Imports no torch: the operator may check a spec with it."""

from dataclasses import dataclass

from moe_formats.failure import JobError


@dataclass(frozen=True)
class Layout:
    """W processes as a grid of data by expert parallelism; neighbours share a copy of the in-layer experts."""

    processes: int = 1
    expert: int = 1  #: Processes over which the in-layer experts of each layer are cut.

    @property
    def data(self) -> int:
        """How often each in-layer expert exists."""
        return self.processes // self.expert

    def rows(self, rank: int, rows: int) -> range:
        """Return which of a step's rows a process reads; shares differ by one row at most."""
        return range(rank, rows, self.processes)

    def micro_batches(self, rows: int, at_once: int) -> int:
        """Return in how many micro-batches every process reads its share of a step's rows, ``at_once`` at most.

        All processes take the same number, none of them empty, since they compute them together: where shares
        differ and ``at_once`` is 1, a micro-batch has two rows instead.
        """
        smallest, largest = rows // self.processes, -(-rows // self.processes)
        return min(-(-largest // at_once), smallest)


def lay_out(processes: int, expert_parallelism: int, *, in_layer_experts: int | None, rows: int) -> Layout:
    """Return the layout; raises JobError (InvalidConfig) that says what does not fit, and what would.

    ``in_layer_experts`` is None for a dense model, ``rows`` the sequences of one optimizer step.
    """
    if processes % expert_parallelism:
        raise _unfit(
            f"training.resources.expertParallelism is {expert_parallelism}, but {processes} processes (nodes times "
            f"devicesPerNode) are not a multiple of it: choose one of {_divisors(processes)}."
        )
    if expert_parallelism > 1 and in_layer_experts is None:
        raise _unfit(
            f"training.resources.expertParallelism is {expert_parallelism}, but the base is dense: it has no in-layer "
            "experts to cut. Set it to 1."
        )
    if in_layer_experts is not None and in_layer_experts % expert_parallelism:
        fitting = [n for n in _divisors(processes) if in_layer_experts % n == 0]
        raise _unfit(
            f"training.resources.expertParallelism is {expert_parallelism}, but the base's {in_layer_experts} in-layer "
            f"experts cannot be cut into as many equal parts: choose one of {fitting}."
        )
    if rows < processes:
        raise _unfit(
            f"a step of training.batchTokens has {rows} sequences, fewer than the {processes} processes that share "
            "them: raise batchTokens, or take fewer nodes or devicesPerNode."
        )
    return Layout(processes, expert_parallelism)


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def _unfit(message: str) -> JobError:
    return JobError("InvalidConfig", message)
