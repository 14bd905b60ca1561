"""Training spread over processes, in every way there is, takes the steps of one process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_formats.failure import JobError
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.parallel.processes import Processes
from moe_trainer.parallel.tensor_files import read_tensors
from moe_trainer.weights.reading import load_tensors

from .forked import free_port
from .worker import SMALL, parts, train

WORKER = "tests.trainer.parallel.worker"
ROOT = Path(__file__).parents[3]
#: By number of processes: the cases that one start of them goes through.
CASES: dict[int, list[dict[str, Any]]] = {
    2: [
        {"expert": 1, "shard": False},
        {"expert": 1, "shard": True},
        {"expert": 2, "shard": False},
        {"expert": 2, "shard": True},
        {"expert": 2, "shard": False, "kind": "crowd"},
        {"expert": 1, "shard": True, "kind": "lora"},
        {"expert": 2, "shard": False, "kind": "lora"},
        {"expert": 2, "shard": True, "kind": "lora"},
        {"expert": 2, "shard": False, "kind": "transformers"},
        {"expert": 2, "shard": True, "kind": "transformers"},
        {"expert": 2, "shard": False, "kind": "transformers, lora"},
        {"expert": 2, "shard": True, "kind": "transformers, lora"},
        {"expert": 2, "shard": False, "kind": "bank"},
        {"expert": 2, "shard": True, "kind": "bank"},
        {"expert": 1, "shard": True, "kind": "transformers, bank"},
        {"expert": 2, "shard": False, "kind": "transformers, bank"},
        {"expert": 2, "shard": True, "kind": "transformers, bank"},
        {"expert": 1, "shard": False, "kind": "transformers, gpt2, lora"},
        {"expert": 1, "shard": True, "kind": "transformers, gpt2, lora"},
    ],
    4: [{"expert": 2, "shard": False}, {"expert": 2, "shard": True}],
}


@dataclass(frozen=True)
class Outcome:
    """What the processes of one start left."""

    folder: Path
    cases: list[dict[str, Any]]


def result_of(folder: Path, number: int) -> dict[str, Any]:
    """Return what the first process left of a case."""
    seen: dict[str, Any] = json.loads((folder / f"{number}.json").read_text())
    return seen | {"weights": load_tensors(folder / f"{number}.safetensors")}


def start(world: int, folder: Path) -> Outcome:
    ports = [free_port() for _ in CASES[world]]  # the processes meet anew for each case
    cases = [case | {"port": port} for case, port in zip(CASES[world], ports, strict=True)]
    done = subprocess.run(
        [sys.executable, "-m", WORKER, str(folder), str(world), json.dumps(cases)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return Outcome(folder, [result_of(folder, number) for number in range(len(cases))])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda world: start(world, tmp_path_factory.mktemp(f"world-{world}")))


@pytest.mark.parametrize(
    ("world", "number"), [(world, number) for world, cases in CASES.items() for number in range(len(cases))]
)
def test_several_processes_take_the_steps_of_one(results: Any, world: int, number: int) -> None:
    case = CASES[world][number]
    alone = train(Processes(), None, case.get("kind", "preset"))
    found = results(world).cases[number]
    # A decoder of transformers returns its logits in single precision, whatever it computes in.
    loss, weight = (1e-6, 1e-5) if "transformers" in case.get("kind", "") else (1e-12, 1e-9)
    assert found["losses"] == pytest.approx(alone["losses"], rel=loss)
    assert found["norms"] == pytest.approx(alone["norms"], rel=weight)
    assert found["weights"].keys() == alone["weights"].keys()
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, rtol=weight, atol=weight / 100)
    if case.get("shard"):
        assert found["held"] < 0.6 * alone["held"] * 2 / world
    if case["expert"] > 1:
        assert found["held"] < alone["held"]


@pytest.mark.parametrize(("world", "number"), [(2, 0), (2, 1), (2, 3), (4, 1)])
def test_one_process_reads_what_several_wrote(results: Any, world: int, number: int) -> None:
    model = Model(SMALL).double()
    initialise(model, seed=99)
    read_tensors(results(world).folder / f"files-{number}", parts(model, Processes()), None)
    expected = Model(SMALL).double()
    initialise(expected, seed=number)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))


def test_files_without_a_tensor_or_of_another_shape_are_refused_before_anything_is_read(
    results: Any,
) -> None:
    model = Model(SMALL.model_copy(update={"moe_intermediate_size": 12})).double()
    initialise(model, seed=99)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(JobError, match=r"gate_up_E2FD has shape \(4, 16, 16\), not \(4, 24, 16\)"):
        read_tensors(results(2).folder / "files-1", parts(model, Processes()), None)
    with pytest.raises(JobError, match=r"other has shape None, not \(3,\)"):
        read_tensors(results(2).folder / "files-1", {"other": torch.zeros(3)}, None)
    assert all(map(torch.equal, model.parameters(), before))
