"""One run in several processes: the steps of one process, and whatever happens to a process."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from moe_formats.failure import JobError
from moe_formats.job_config import TrainJob
from moe_formats.job_report import TrainHeadline
from moe_formats.training_spec import Balancing, EarlyStop
from moe_trainer import train
from moe_trainer.environment import Environment
from moe_trainer.weights.reading import load_tensors

from .conftest import Pool

_DIE = """
import os
import moe_trainer.{module} as module
real, calls = module.{name}, 0

def wrapped(*arguments, **keywords):
    global calls
    calls += 1
    if calls == {call} and os.environ["RANK"] == "{rank}":
        os._exit(137)  # as kill -9: nothing is cleaned up, nothing is flushed
    return real(*arguments, **keywords)

module.{name} = wrapped
"""


def run_gang(pool: Pool, job: TrainJob, code: str = "", processes: int = 2) -> Sequence[int | None]:
    """Run a job in several processes to their ends, as one pod, and return their exit codes."""
    (pool.root / "termination").unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    started = [
        pool.fork(
            job,
            code,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            WORLD_SIZE=str(processes),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
        )
        for rank in range(processes)
    ]
    try:
        for process in started:
            print(process.communicate(timeout=120))
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started]


def made(pool: Pool) -> TrainHeadline:
    return TrainHeadline.model_validate(pool.headline())


def assert_close(pool: Pool, one: TrainHeadline, other: TrainHeadline) -> None:
    """What two runs made is the same but for the order in which numbers were added up."""
    reports = [pool.report(headline) for headline in (one, other)]
    assert reports[0]["losses"] == pytest.approx(reports[1]["losses"], rel=1e-4)
    assert list(reports[0]["validations"].values()) == pytest.approx(
        list(reports[1]["validations"].values()), rel=1e-4
    )
    weights = [load_tensors(pool.store / headline.path / "model.safetensors") for headline in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-2, atol=2e-3)


def test_two_processes_train_as_one_and_go_on_exactly_after_one_was_killed(pool: Pool) -> None:
    alone = pool.train(pool.job(run="alone"))
    assert run_gang(pool, pool.job()) == [0, 0]
    whole = made(pool)
    assert pool.report(whole)["provenance"]["processes"] == 2
    assert_close(pool, alone, whole)

    in_background = "from moe_trainer.training import checkpoint; checkpoint.AT_ONCE_BYTES = 0\n"
    dies_writing = in_background + _DIE.format(
        module="training.checkpoint", name="write_tensors", call=3, rank=1
    )
    codes = run_gang(pool, pool.job(run="killed"), dies_writing)
    assert codes[1] == 137 and codes[0] == 1
    assert pool.headline()["reason"] == "PeerLost" and pool.headline()["retryable"]
    assert run_gang(pool, pool.job(run="killed", attempt=2), in_background) == [0, 0]
    resumed = made(pool)
    assert resumed.resumed_from == 6
    assert pool.report(resumed)["losses"] == pool.report(whole)["losses"]
    assert pool.weights(resumed) == pool.weights(whole)


def test_in_layer_experts_cut_over_processes_train_as_one_and_one_process_goes_on(pool: Pool) -> None:
    alone = pool.train(pool.job(run="alone"))
    cut = pool.job().model_copy(update={"expert_parallelism": 2})
    codes = run_gang(pool, cut, _DIE.format(module="train", name="take_step", call=8, rank=0))
    assert codes[0] == 137 and codes[1] == 1
    resumed = pool.train(pool.job(attempt=2))
    assert resumed.resumed_from == 6
    assert_close(pool, alone, resumed)


#: As if the model had no room in one process.
_SHARDED = "from moe_trainer.parallel import spread; spread.REPLICATED_BYTES = 0\n"


def test_a_model_that_no_process_has_whole_trains_as_one_and_goes_on_exactly(pool: Pool) -> None:
    spec: dict[str, Any] = {
        "validation_every": 3,  # with every checkpoint
        "early_stop": EarlyStop(patience=4),
        "specialization_loss_weight": 0.5,
        "balancing": Balancing(against="Base"),
    }

    def job(run: str = "run", attempt: int = 1) -> TrainJob:
        found = pool.job(run=run, attempt=attempt, **spec)
        return found.model_copy(update={"expert_parallelism": 2})

    alone = pool.train(pool.job(run="alone", **spec))
    assert run_gang(pool, job(), _SHARDED) == [0, 0]
    whole = made(pool)
    assert_close(pool, alone, whole)
    killed = _SHARDED + _DIE.format(module="train", name="take_step", call=8, rank=1)
    assert run_gang(pool, job(run="killed"), killed)[1] == 137
    assert run_gang(pool, job(run="killed", attempt=2), _SHARDED) == [0, 0]
    resumed = made(pool)
    assert resumed.resumed_from == 6
    assert pool.report(resumed)["losses"] == pool.report(whole)["losses"]
    assert pool.weights(resumed) == pool.weights(whole)


def test_an_error_in_one_process_is_the_headline_whoever_ends_last(pool: Pool) -> None:
    fails = """
import os
from moe_trainer import train
from moe_formats.failure import JobError

def fail(run):
    raise JobError("LossNotFinite", "the router of layer 3")

if os.environ["RANK"] == "1":
    train.take_step = fail
"""
    assert run_gang(pool, pool.job(), fails) == [1, 64]
    assert pool.headline()["reason"] == "LossNotFinite"


@pytest.mark.parametrize(
    ("processes", "expert_parallelism", "message"),
    [
        (8, 1, r"4 sequences, fewer than the 8 processes"),
        (3, 2, r"expertParallelism is 2, but 3 processes"),
        (3, 3, r"4 in-layer experts cannot be cut"),
        (1, 2, r"expertParallelism is 2, but 1 processes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_anything_starts(
    pool: Pool, processes: int, expert_parallelism: int, message: str
) -> None:
    job = pool.job().model_copy(update={"expert_parallelism": expert_parallelism})
    with pytest.raises(JobError, match=f"InvalidConfig.*{message}"):
        train.run(job, Environment(store=pool.store, processes=processes))
