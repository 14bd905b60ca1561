import pytest

from moe_formats.failure import JobError
from moe_trainer.parallel.layout import Layout, lay_out


@pytest.mark.parametrize(
    ("processes", "expert", "data"), [(1, 1, 1), (4, 1, 4), (4, 2, 2), (32, 8, 4), (8, 8, 1)]
)
def test_processes_are_a_grid_of_expert_by_data_parallelism(processes: int, expert: int, data: int) -> None:
    layout = lay_out(processes, expert, in_layer_experts=128, rows=64)
    assert (layout.processes, layout.expert, layout.data) == (processes, expert, data)


@pytest.mark.parametrize("rows", [7, 8, 9, 64])
def test_every_row_is_read_by_one_process_and_shares_differ_by_one_at_most(rows: int) -> None:
    layout = Layout(processes=7)
    shares = [list(layout.rows(rank, rows)) for rank in range(7)]
    assert sorted(row for share in shares for row in share) == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"processes": 6, "expert_parallelism": 4},
            r"expertParallelism is 4, but 6 processes .* choose one of \[1, 2, 3, 6\]",
        ),
        (
            {"processes": 6, "expert_parallelism": 3},
            r"the base's 8 in-layer experts cannot be cut into that many equal parts: choose one of \[1, 2\]",
        ),
        (
            {"processes": 4, "expert_parallelism": 2, "in_layer_experts": None},
            "the base is dense: it has no in-layer experts to cut. Set it to 1",
        ),
        (
            {"processes": 32, "expert_parallelism": 1},
            "batchTokens has 16 sequences, fewer than the 32 processes that share them: raise batchTokens",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(JobError, match=message) as raised:
        lay_out(**({"in_layer_experts": 8, "rows": 16} | arguments))  # type: ignore[arg-type]
    assert raised.value.reason == "InvalidConfig"
