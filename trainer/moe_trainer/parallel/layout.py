"""How the processes of a run are laid out. Imports no torch."""

from dataclasses import dataclass

from moe_formats.failure import JobError


@dataclass(frozen=True)
class Layout:
    """W processes as a grid of data by expert parallelism; neighbouring processes share a copy of the in-layer experts."""

    processes: int = 1
    expert: int = 1  #: The number of processes over which the in-layer experts of each layer are cut.

    @property
    def data(self) -> int:
        """The number of copies of each in-layer expert."""
        return self.processes // self.expert

    def rows(self, rank: int, rows: int) -> range:
        """Return which of a step's rows a process reads; the processes' shares differ by at most one row."""
        return range(rank, rows, self.processes)

    def micro_batches(self, rows: int, at_once: int) -> int:
        """Return the number of micro-batches in which every process reads its share, with at most ``at_once`` rows each.

        All processes use the same number, and none is empty, since they compute them together. Where shares differ and
        ``at_once`` is 1, a micro-batch can have two rows.
        """
        smallest, largest = rows // self.processes, -(-rows // self.processes)
        return min(-(-largest // at_once), smallest)


def lay_out(processes: int, expert_parallelism: int, *, in_layer_experts: int | None, rows: int) -> Layout:
    """Return the layout; raises JobError (InvalidConfig), which says what does not fit and what would.

    ``in_layer_experts`` is None for a dense model; ``rows`` is the number of sequences in an optimizer step.
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
            f"experts cannot be cut into that many equal parts: choose one of {fitting}."
        )
    if rows < processes:
        raise _unfit(
            f"a step of training.batchTokens has {rows} sequences, fewer than the {processes} processes that share "
            "them: raise batchTokens, or lower nodes or devicesPerNode."
        )
    return Layout(processes, expert_parallelism)


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def _unfit(message: str) -> JobError:
    return JobError("InvalidConfig", message)
